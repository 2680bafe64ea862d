//! Sentences on purchases and points.

use domain::loyalty;
use domain::purchase::{self, Kind};

use super::sentence::{Sentence, amount, count, number, say};

pub fn purchase(event: &purchase::Event) -> Sentence {
    match event {
        purchase::Event::Recorded {
            kind,
            source,
            store,
            receipt,
            currency,
            lines,
            total_minor,
            of,
            ..
        } => {
            let place = store.as_ref().unwrap_or(source);
            let total = amount(*total_minor, *currency);
            let lines = i64::try_from(lines.len()).expect("a receipt's few lines");
            let items = count(lines, "line");
            match kind {
                Kind::Sale => say(
                    format!("Purchase at {place} for {total}, {items}, receipt {receipt}"),
                    format!("於 {place} 消費 {total}，共 {lines} 項，單號 {receipt}"),
                ),
                Kind::Return => {
                    let sale = of
                        .as_ref()
                        .map(|sale| say(format!("of receipt {sale}"), format!("原單號 {sale}")));
                    say(
                        format!("Return at {place} for {total}, {items}, receipt {receipt}"),
                        format!("於 {place} 退貨 {total}，共 {lines} 項，單號 {receipt}"),
                    )
                    .and(sale)
                }
            }
        }
        purchase::Event::CustomerAttached {
            from,
            receipt,
            currency,
            total_minor,
            ..
        } => {
            let total = amount(*total_minor, *currency);
            let moved = from.map(|_| say("until now another customer's", "原屬其他客戶"));
            say(
                format!("Receipt {receipt} for {total} attached to the customer"),
                format!("單號 {receipt}（{total}）歸戶"),
            )
            .and(moved)
        }
        purchase::Event::Voided {
            reason,
            receipt,
            currency,
            total_minor,
            ..
        } => {
            let total = amount(*total_minor, *currency);
            say(
                format!("Receipt {receipt} for {total} voided"),
                format!("單號 {receipt}（{total}）作廢"),
            )
            .because(Some(reason))
        }
        purchase::Event::Corrected {
            receipt,
            currency,
            total_minor,
            was,
            ..
        } => {
            let total = amount(*total_minor, *currency);
            match was {
                Some(was) => {
                    let before = amount(was.total_minor, was.currency);
                    say(
                        format!("Receipt {receipt} corrected: {total}, before {before}"),
                        format!("單號 {receipt} 更正為 {total}，原為 {before}"),
                    )
                }
                None => say(
                    format!("Receipt {receipt} counts again, for {total}"),
                    format!("單號 {receipt} 恢復有效，金額 {total}"),
                ),
            }
        }
    }
}

pub fn loyalty(event: &loyalty::Event) -> Sentence {
    match event {
        loyalty::Event::Enrolled { program, .. } => say(
            format!("Enrolled in the loyalty program {program}"),
            format!("加入會員方案「{program}」"),
        ),
        loyalty::Event::Earned {
            points,
            source,
            expires_on,
            debt_paid,
            balance,
        } => {
            let expiry = expires_on.map(|day| say(format!("expiring on {day}"), format!("{day} 到期")));
            say(
                format!("Earned {} from {source}", count(*points, "point")),
                format!("獲得 {} 點，來源 {source}", number(*points)),
            )
            .and(expiry)
            .and(paid_off(*debt_paid))
            .and(Some(left(*balance)))
        }
        loyalty::Event::Redeemed {
            points,
            reference,
            balance,
            ..
        } => say(
            format!("Redeemed {} for {reference}", count(*points, "point")),
            format!("兌換 {} 點，用於 {reference}", number(*points)),
        )
        .and(Some(left(*balance))),
        loyalty::Event::Expired {
            on, points, balance, ..
        } => say(
            format!("{} expired on {on}", count(*points, "point")),
            format!("{} 點於 {on} 到期失效", number(*points)),
        )
        .and(Some(left(*balance))),
        loyalty::Event::EarnReversed {
            of,
            points,
            debt,
            reason,
            balance,
            ..
        } => say(
            format!("{} earned from {of} taken back", count(*points, "point")),
            format!("沖回 {of} 獲得的 {} 點", number(*points)),
        )
        .and(owed(*debt))
        .and(Some(left(*balance)))
        .because(Some(reason)),
        loyalty::Event::RedemptionReversed {
            of,
            points,
            debt_paid,
            reason,
            balance,
            ..
        } => say(
            format!("{} redeemed for {of} given back", count(*points, "point")),
            format!("退還 {of} 兌換的 {} 點", number(*points)),
        )
        .and(paid_off(*debt_paid))
        .and(Some(left(*balance)))
        .because(Some(reason)),
        loyalty::Event::Adjusted {
            points,
            debt_paid,
            debt,
            reason,
            balance,
            ..
        } => say(
            format!("Points adjusted by {points:+}"),
            format!("點數調整 {points:+} 點"),
        )
        .and(paid_off(*debt_paid))
        .and(owed(*debt))
        .and(Some(left(*balance)))
        .because(Some(reason)),
    }
}

fn owed(debt: i64) -> Option<Sentence> {
    (debt != 0).then(|| {
        say(
            format!("{} owed", count(debt, "point")),
            format!("尚欠 {} 點", number(debt)),
        )
    })
}

fn paid_off(debt: i64) -> Option<Sentence> {
    (debt != 0).then(|| {
        say(
            format!("{} of it paid off debt", number(debt)),
            format!("其中 {} 點抵銷欠點", number(debt)),
        )
    })
}

fn left(balance: i64) -> Sentence {
    say(
        format!("balance {}", number(balance)),
        format!("餘額 {} 點", number(balance)),
    )
}
