//! Sentences on cases, equipment, inspections and jobs.

use domain::case::{self, Author, Kind, PendingOn, Priority};
use domain::inspection::{self, Outcome};
use domain::{Calendar, equipment, job};

use super::sentence::{Sentence, channel, count, say, time};

pub fn case(event: &case::Event) -> Sentence {
    match event {
        case::Event::Opened {
            subject,
            kind,
            priority,
            channel: by,
            ..
        } => {
            let (kind, priority, by) = (case_kind(*kind), case_priority(*priority), channel(*by));
            let subject = subject.reveal();
            say(
                format!(
                    "Case ({}, {} priority) opened {}: {subject}",
                    kind.en, priority.en, by.en
                ),
                format!(
                    "開立服務案件（{}，優先度{}，{}）：{subject}",
                    kind.zh, priority.zh, by.zh
                ),
            )
        }
        case::Event::Classified {
            category,
            from_priority,
            priority,
            reason,
            ..
        } => {
            let (from, to) = (case_priority(*from_priority), case_priority(*priority));
            let changed = (from_priority != priority).then(|| {
                say(
                    format!("priority from {} to {}", from.en, to.en),
                    format!("優先度由{}改為{}", from.zh, to.zh),
                )
            });
            say(
                format!("Case classified as {category}"),
                format!("案件分類為 {category}"),
            )
            .and(changed)
            .because(reason.as_deref())
        }
        case::Event::Assigned { agent, group, .. } => match (agent, group) {
            (Some(agent), Some(group)) => say(
                format!("Case assigned to {agent} of {group}"),
                format!("案件指派給 {group} 的 {agent}"),
            ),
            (Some(agent), None) => say(format!("Case assigned to {agent}"), format!("案件指派給 {agent}")),
            (None, Some(group)) => say(
                format!("Case put in the queue of {group}"),
                format!("案件轉入 {group} 佇列"),
            ),
            (None, None) => say("Case assigned to nobody", "案件取消指派"),
        },
        case::Event::Replied { author, public, .. } => match (author, public) {
            (Author::Agent, true) => say("An agent replied to the customer", "客服人員回覆客戶"),
            (Author::Agent, false) => say("An agent left an internal note", "客服人員新增內部備註"),
            (Author::Bot, true) => say("The bot replied to the customer", "機器人回覆客戶"),
            (Author::Bot, false) => say("The bot left an internal note", "機器人新增內部備註"),
            (Author::System, true) => say("An automatic reply went to the customer", "系統自動回覆客戶"),
            (Author::System, false) => say("The system left an internal note", "系統新增內部備註"),
        },
        case::Event::Pending { on, .. } => match on {
            PendingOn::Customer => say("Case waits for the customer", "案件等待客戶回覆"),
            PendingOn::ThirdParty => say("Case waits for a third party", "案件等待第三方"),
        },
        case::Event::Resumed { .. } => say("Work on the case went on", "案件繼續處理"),
        case::Event::Escalated { reason, .. } => {
            say(format!("Case escalated: {reason}"), format!("案件升級處理：{reason}"))
        }
        case::Event::Resolved { code, .. } => say(format!("Case resolved: {code}"), format!("案件已解決：{code}")),
        case::Event::Reopened { reason, .. } => {
            say(format!("Case reopened: {reason}"), format!("案件重新開啟：{reason}"))
        }
        case::Event::Closed { code, .. } => say(format!("Case closed: {code}"), format!("案件結案：{code}")),
    }
}

fn case_kind(kind: Kind) -> Sentence {
    match kind {
        Kind::Question => say("question", "詢問"),
        Kind::Request => say("request", "需求"),
        Kind::Incident => say("incident", "故障"),
        Kind::Complaint => say("complaint", "客訴"),
    }
}

fn case_priority(priority: Priority) -> Sentence {
    match priority {
        Priority::Low => say("low", "低"),
        Priority::Normal => say("normal", "一般"),
        Priority::High => say("high", "高"),
        Priority::Urgent => say("urgent", "緊急"),
    }
}

pub fn equipment(event: &equipment::Event, calendar: &Calendar) -> Sentence {
    match event {
        equipment::Event::Installed {
            maker,
            serial,
            model,
            site,
            warranty_until,
            ..
        } => {
            let site = site.reveal();
            let warranty =
                warranty_until.map(|until| say(format!("under warranty until {until}"), format!("保固至 {until}")));
            say(
                format!("Equipment {maker} {model}, serial number {serial}, installed at {site}"),
                format!("於「{site}」安裝設備 {maker} {model}，序號 {serial}"),
            )
            .and(warranty)
        }
        equipment::Event::Moved { from, to } => {
            let (from, to) = (from.reveal(), to.reveal());
            say(
                format!("Equipment moved from {from} to {to}"),
                format!("設備由「{from}」移至「{to}」"),
            )
        }
        equipment::Event::OwnerTransferred { reason, .. } => {
            say("Equipment passed to another owner", "設備移轉給其他客戶").because(Some(reason))
        }
        equipment::Event::Down { symptom, .. } => {
            say(format!("Equipment down: {symptom}"), format!("設備故障停機：{symptom}"))
        }
        equipment::Event::Restored { down_since } => {
            let since = time(*down_since, calendar);
            say(
                format!("Equipment works again; it was down since {since}"),
                format!("設備恢復運轉，自 {since} 起停機"),
            )
        }
        equipment::Event::Retired { .. } => say("Equipment retired", "設備除役"),
        equipment::Event::InspectionsPlanned {
            checklist,
            every_days,
            first_due,
            ..
        } => {
            let days = count((*every_days).into(), "day");
            say(
                format!("Inspection {checklist} planned every {days} from {first_due} on"),
                format!("排定檢驗「{checklist}」，自 {first_due} 起每 {every_days} 天一次"),
            )
        }
    }
}

pub fn inspection(event: &inspection::Event) -> Sentence {
    match event {
        inspection::Event::Scheduled { due, checklist, .. } => say(
            format!("Inspection {checklist} scheduled, due on {due}"),
            format!("排定檢驗「{checklist}」，到期日 {due}"),
        ),
        inspection::Event::Started { due, checklist, .. } => say(
            format!("Inspection {checklist}, due on {due}, started"),
            format!("開始檢驗「{checklist}」，到期日 {due}"),
        ),
        inspection::Event::ReadingRecorded {
            item,
            value,
            unit,
            pass,
            replaces,
            ..
        } => {
            let reading = match unit {
                None => value.clone(),
                Some(unit) => format!("{value} {unit}"),
            };
            let (passed_en, passed_zh) = if *pass {
                ("passed", "合格")
            } else {
                ("failed", "不合格")
            };
            let again = replaces.then(|| say("in place of an earlier reading", "取代先前的讀數"));
            say(
                format!("Reading of {item}: {reading}, {passed_en}"),
                format!("檢驗項目「{item}」讀數 {reading}，{passed_zh}"),
            )
            .and(again)
        }
        inspection::Event::Finished {
            checklist,
            outcome,
            failed,
            ..
        } => match outcome {
            Outcome::Passed => say(
                format!("Inspection {checklist} passed"),
                format!("檢驗「{checklist}」合格"),
            ),
            Outcome::Failed => say(
                format!("Inspection {checklist} failed: {}", failed.join(", ")),
                format!("檢驗「{checklist}」不合格：{}", failed.join("、")),
            ),
        },
        inspection::Event::Voided { checklist, reason, .. } => say(
            format!("Inspection {checklist} voided"),
            format!("檢驗「{checklist}」作廢"),
        )
        .because(Some(reason)),
    }
}

pub fn job(event: &job::Event, calendar: &Calendar) -> Sentence {
    match event {
        job::Event::Created { summary, .. } => {
            let summary = summary.reveal();
            say(format!("Job created: {summary}"), format!("開立工單：{summary}"))
        }
        job::Event::Scheduled {
            start,
            end,
            technician,
            replaces,
            ..
        } => {
            let (from, to) = (time(*start, calendar), time(*end, calendar));
            match replaces {
                None => say(
                    format!("Job scheduled for {technician}, {from} to {to}"),
                    format!("工單排程：{technician}，{from} 至 {to}"),
                ),
                Some(_) => say(
                    format!("Job moved: {technician}, {from} to {to}"),
                    format!("工單改期：{technician}，{from} 至 {to}"),
                ),
            }
        }
        job::Event::Dispatched { technician, .. } => say(
            format!("{technician} was sent out for the job"),
            format!("派遣 {technician} 執行工單"),
        ),
        job::Event::Started { technician, .. } => say(
            format!("{technician} started work on the job"),
            format!("{technician} 開始施工"),
        ),
        job::Event::Held { reason, .. } => say(format!("Job on hold: {reason}"), format!("工單暫停：{reason}")),
        job::Event::Completed {
            technician,
            resolution,
            parts,
            labour_minutes,
            ..
        } => {
            let resolution = resolution.reveal();
            let minutes = count((*labour_minutes).into(), "minute");
            let used: Vec<String> = parts
                .iter()
                .map(|part| format!("{} × {}", part.quantity, part.sku))
                .collect();
            let used = (!used.is_empty()).then(|| {
                say(
                    format!("parts: {}", used.join(", ")),
                    format!("零件：{}", used.join("、")),
                )
            });
            say(
                format!("{technician} completed the job in {minutes}: {resolution}"),
                format!("{technician} 完成工單，工時 {labour_minutes} 分鐘：{resolution}"),
            )
            .and(used)
        }
        job::Event::SignedOff { by, .. } => {
            let by = by.reveal();
            say(format!("Job signed off by {by}"), format!("工單由 {by} 簽收"))
        }
        job::Event::Closed { .. } => say("Job closed", "工單結案"),
        job::Event::Cancelled { reason, .. } => say(format!("Job cancelled: {reason}"), format!("工單取消：{reason}")),
    }
}
