//! Sentences on customers, leads, deals and contacts.

use domain::customer::{self, ContactKind, Kind};
use domain::interaction::{self, Direction};
use domain::opportunity::{self, ForecastCategory};
use domain::{lead, link, pipeline};

use super::sentence::{Sentence, channel, money, percent, say};

pub fn customer(event: &customer::Event) -> Sentence {
    match event {
        customer::Event::Registered { kind, name, .. } => {
            let name = name.reveal();
            match kind {
                Kind::Organisation => say(
                    format!("Organisation {name} was registered as a customer"),
                    format!("建立企業客戶「{name}」"),
                ),
                Kind::Person => say(
                    format!("{name} was registered as a customer"),
                    format!("建立個人客戶「{name}」"),
                ),
            }
        }
        customer::Event::Renamed { from, to } => {
            let (from, to) = (from.reveal(), to.reveal());
            say(
                format!("Renamed from {from} to {to}"),
                format!("客戶名稱由「{from}」改為「{to}」"),
            )
        }
        customer::Event::ContactPointSet { kind, primary, .. } => {
            let (en, zh) = match kind {
                ContactKind::Email => ("e-mail address", "電子郵件"),
                ContactKind::Phone => ("telephone number", "電話"),
                ContactKind::Line => ("LINE id", "LINE 帳號"),
                ContactKind::Address => ("address", "地址"),
            };
            match primary {
                true => say(format!("Primary {en} set"), format!("設定主要{zh}")),
                false => say(format!("Additional {en} set"), format!("新增其他{zh}")),
            }
        }
        customer::Event::OwnerAssigned { from, to } => match from {
            None => say(format!("Assigned to {to}"), format!("指派負責人 {to}")),
            Some(from) => say(
                format!("Handed over from {from} to {to}"),
                format!("負責人由 {from} 改為 {to}"),
            ),
        },
        customer::Event::GradeSet { from, to, reason } => match from {
            None => say(format!("Grade set to {to}"), format!("客戶等級設為 {to}")),
            Some(from) => say(
                format!("Grade changed from {from} to {to}"),
                format!("客戶等級由 {from} 調整為 {to}"),
            ),
        }
        .because(reason.as_deref()),
        customer::Event::Closed => say("Customer closed", "客戶停止往來"),
        customer::Event::Reopened => say("Customer reopened", "客戶恢復往來"),
    }
}

pub fn link(event: &link::Event) -> Sentence {
    match event {
        link::Event::Linked { source, key, .. } => say(
            format!("Linked to {key} in {source}"),
            format!("連結至 {source} 的編號 {key}"),
        ),
        link::Event::Unlinked { .. } => say("Link to another system removed", "解除與外部系統的連結"),
    }
}

pub fn lead(event: &lead::Event) -> Sentence {
    match event {
        lead::Event::Captured {
            source,
            name,
            company,
            campaign,
            ..
        } => {
            let name = name.reveal();
            let (en, zh) = match company {
                None => (name.clone(), format!("「{name}」")),
                Some(company) => (format!("{name} of {company}"), format!("「{company} {name}」")),
            };
            let campaign = campaign
                .as_ref()
                .map(|campaign| say(format!("campaign {campaign}"), format!("行銷活動 {campaign}")));
            say(
                format!("Lead {en} was captured from {source}"),
                format!("取得線索{zh}，來源 {source}"),
            )
            .and(campaign)
        }
        lead::Event::Assigned { from_owner, owner, .. } => match from_owner {
            None => say(format!("Lead assigned to {owner}"), format!("線索指派給 {owner}")),
            Some(from) => say(
                format!("Lead handed over from {from} to {owner}"),
                format!("線索由 {from} 轉給 {owner}"),
            ),
        },
        lead::Event::AttemptLogged {
            channel: by, outcome, ..
        } => {
            let by = channel(*by);
            say(
                format!("Tried to reach the lead {}: {outcome}", by.en),
                format!("以{}聯繫線索：{outcome}", by.zh),
            )
        }
        lead::Event::Qualified { .. } => say("Lead qualified", "線索符合資格"),
        lead::Event::Converted { opportunity, .. } => match opportunity {
            None => say("Lead converted to a customer", "線索轉為客戶"),
            Some(_) => say("Lead converted to a customer with a deal", "線索轉為客戶並建立商機"),
        },
        lead::Event::Disqualified { reason, .. } => say(
            format!("Lead disqualified: {reason}"),
            format!("線索不符資格：{reason}"),
        ),
        lead::Event::Recycled { .. } => say("Lead put back for later", "線索回收再開發"),
    }
}

pub fn opportunity(event: &opportunity::Event) -> Sentence {
    match event {
        opportunity::Event::Opened {
            name,
            stage,
            amount,
            close_date,
            owner,
            ..
        } => {
            let amount = amount.map(|amount| say(money(amount), format!("金額 {}", money(amount))));
            let zh_stage = stage_zh(stage);
            say(
                format!("Deal {name} was opened in {stage}, owner {owner}, to close on {close_date}"),
                format!("開立商機「{name}」，階段{zh_stage}，負責人 {owner}，預計 {close_date} 結案"),
            )
            .and(amount)
        }
        opportunity::Event::StageChanged { from, to, reason, .. } => say(
            format!("Deal moved from {from} to {to}"),
            format!("商機階段由{}改為{}", stage_zh(from), stage_zh(to)),
        )
        .because(reason.as_deref()),
        opportunity::Event::AmountSet { from, to } => match from {
            None => say(
                format!("Deal amount set to {}", money(*to)),
                format!("商機金額設為 {}", money(*to)),
            ),
            Some(from) => say(
                format!("Deal amount changed from {} to {}", money(*from), money(*to)),
                format!("商機金額由 {} 調整為 {}", money(*from), money(*to)),
            ),
        },
        opportunity::Event::CloseDateSet { from, to } => say(
            format!("Expected close date moved from {from} to {to}"),
            format!("預計結案日由 {from} 改為 {to}"),
        ),
        opportunity::Event::ForecastCategorySet { from, to } => {
            let (from, to) = (category(*from), category(*to));
            say(
                format!("Forecast category changed from {} to {}", from.en, to.en),
                format!("預測類別由{}改為{}", from.zh, to.zh),
            )
        }
        opportunity::Event::ProbabilityOverridden { basis_points, reason } => say(
            format!("Probability set to {} by hand", percent(*basis_points)),
            format!("成交機率手動設為 {}", percent(*basis_points)),
        )
        .because(Some(reason)),
        opportunity::Event::Won { amount, reason, .. } => say(
            format!("Deal won for {}", money(*amount)),
            format!("商機成交，金額 {}", money(*amount)),
        )
        .because(reason.as_deref()),
        opportunity::Event::Lost { reason, competitor, .. } => {
            let competitor = competitor
                .as_ref()
                .map(|competitor| say(format!("to {competitor}"), format!("競爭對手 {competitor}")));
            say(format!("Deal lost: {reason}"), format!("商機失敗：{reason}")).and(competitor)
        }
        opportunity::Event::Reopened { stage, reason } => say(
            format!("Deal reopened in {stage}"),
            format!("商機重新開啟，階段{}", stage_zh(stage)),
        )
        .because(Some(reason)),
        opportunity::Event::CloseReasonSet { reason, competitor, .. } => {
            let competitor = competitor
                .as_ref()
                .map(|competitor| say(format!("to {competitor}"), format!("競爭對手 {competitor}")));
            say("Why the deal ended was put right", "更正結案原因")
                .because(reason.as_deref())
                .and(competitor)
        }
        opportunity::Event::OwnerAssigned { from, to } => say(
            format!("Deal handed over from {from} to {to}"),
            format!("商機由 {from} 轉給 {to}"),
        ),
        opportunity::Event::Renamed { from, to } => say(
            format!("Deal renamed from {from} to {to}"),
            format!("商機「{from}」改名為「{to}」"),
        ),
        opportunity::Event::CustomerChanged { reason, .. } => {
            say("Deal moved to another customer", "商機改屬其他客戶").because(Some(reason))
        }
    }
}

fn stage_zh(stage: &str) -> String {
    match pipeline::stage(stage) {
        Some(known) => format!("「{}」", known.name_zh),
        None => format!("「{stage}」"),
    }
}

fn category(category: ForecastCategory) -> Sentence {
    match category {
        ForecastCategory::Pipeline => say("pipeline", "「進行中」"),
        ForecastCategory::BestCase => say("best case", "「樂觀」"),
        ForecastCategory::Commit => say("commit", "「承諾」"),
        ForecastCategory::Omitted => say("omitted", "「不列入」"),
    }
}

pub fn interaction(event: &interaction::Event) -> Sentence {
    match event {
        interaction::Event::Recorded {
            channel: by,
            direction,
            subject,
            ..
        } => {
            let (by, subject) = (channel(*by), subject.reveal());
            match direction {
                Direction::In => say(
                    format!("The customer got in touch {}: {subject}", by.en),
                    format!("客戶來訊（{}）：{subject}", by.zh),
                ),
                Direction::Out => say(
                    format!("We contacted the customer {}: {subject}", by.en),
                    format!("主動聯繫客戶（{}）：{subject}", by.zh),
                ),
            }
        }
        interaction::Event::Corrected { fields, reason, .. } => {
            let corrected = corrected_fields(fields);
            say(
                format!("Record of a contact corrected: {}", corrected.en),
                format!("更正接觸紀錄：{}", corrected.zh),
            )
            .because(Some(reason))
        }
    }
}

/// Which fields were corrected.
fn corrected_fields(fields: &interaction::Fields) -> Sentence {
    let interaction::Fields {
        channel,
        direction,
        subject,
        body,
        about,
    } = fields;
    let named = [
        (channel.is_some(), "channel", "管道"),
        (direction.is_some(), "direction", "方向"),
        (subject.is_some(), "subject", "主旨"),
        (body.is_some(), "text", "內容"),
        (about.is_some(), "what it is about", "相關項目"),
    ];
    let corrected = named.iter().filter(|(is_corrected, _, _)| *is_corrected);
    let (en, zh): (Vec<_>, Vec<_>) = corrected.map(|(_, en, zh)| (*en, *zh)).unzip();
    say(en.join(", "), zh.join("、"))
}
