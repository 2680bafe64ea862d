//! The commands that all contenders get: a receipt with three lines begins a stream; a correction goes to a stream that is there.
//!
//! Stands on `domain` only: the peers use the same file.

use domain::interaction::{self, Channel, Direction, Fields};
use domain::purchase::{self, RungLine, Tender};
use domain::{Currency, Id, StreamRef, customer, derived_id, derived_in};
use jiff::civil::{Date, date};

/// The day of the first receipt.
const FIRST_DAY: Date = date(2025, 1, 1);

/// Receipt number `n` of a run. Its event has about 420 bytes.
pub fn receipt(run: &str, n: u64, customer: Option<Id<customer::Customer>>) -> purchase::Command {
    let line = |position: u64| {
        let quantity = 1 + (n + position) % 4;
        RungLine {
            sku: format!("SKU-{:05}", (n * 7 + position * 1_001) % 5_000),
            name: None,
            quantity: quantity.into(),
            unit_price: (100 + (n * 13 + position * 17) % 900).into(),
            amount_minor: None,
        }
    };
    let lines = vec![line(0), line(1), line(2)];
    let amounts = lines.iter().map(|line| line.quantity * line.unit_price);
    let total: u64 = amounts
        .map(|amount| u64::try_from(amount).expect("a whole amount"))
        .sum();
    let total_minor = (total * 100) as i64;
    purchase::Command::Record {
        kind: purchase::Kind::Sale,
        source: "till".into(),
        store: Some(format!("S{:03}", n % 40)),
        till: Some((1 + n % 4).to_string()),
        receipt: format!("{run}-{n}"),
        business_date: FIRST_DAY
            .checked_add(jiff::Span::new().days((n / 40 % 360) as i64))
            .expect("within the calendar"),
        currency: Currency::TWD,
        lines,
        tax_minor: Some(total_minor / 21),
        tenders: vec![Tender {
            kind: "card".into(),
            amount_minor: total_minor,
        }],
        customer,
        of: None,
    }
}

/// The customer of number `n`.
pub fn customer_id(run: &str, n: u64) -> Id<customer::Customer> {
    Id::new(derived_id(&["bench customer", run, &n.to_string()]))
}

/// Registers it. With `keys` of other systems its event has about 420 bytes.
pub fn register(run: &str, n: u64, keys: usize) -> customer::Command {
    customer::Command::Register {
        kind: customer::Kind::Organisation,
        name: format!("台灣精密機械股份有限公司 {run} {n}").into(),
        country: Some("TW".into()),
        locale: Some("zh-TW".into()),
        external: (0..keys)
            .map(|key| domain::ExternalKey {
                source: format!("system-{key}-of-the-group"),
                key: format!("{run}-number-of-customer-account-{key}-{n:016}"),
            })
            .collect(),
    }
}

/// A contact with that customer, and the stream that it begins.
pub fn contact(run: &str, n: u64) -> (StreamRef, interaction::Command) {
    let customer = customer_id(run, n);
    let provider_id = format!("{run}-{n}");
    let key = ["interaction", Channel::Phone.name(), &provider_id];
    let stream = StreamRef::of::<interaction::Interaction>(Id::new(derived_in(customer.slot(), &key)));
    let command = interaction::Command::Record {
        customer,
        channel: Channel::Phone,
        direction: Direction::In,
        subject: "asks for a quote".into(),
        body: Some(note(0).into()),
        provider_id: Some(provider_id),
        about: vec![],
    };
    (stream, command)
}

/// Correction `n`, different from the one before. Its event has about 420 bytes: it tells what stood there before.
pub fn correction(n: u64) -> interaction::Command {
    interaction::Command::Correct {
        fields: Fields {
            body: Some(note(n).into()),
            ..Fields::default()
        },
        reason: "put right after the call".into(),
    }
}

fn note(n: u64) -> String {
    format!(
        "Called about order {n:012}: wants three spindles, two days earlier than agreed, at the same price; call back before noon. The crane is theirs, the lorry ours."
    )
}

/// Numbers that look random and are the same each time: SplitMix64.
pub fn scattered(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod specs {
    use domain::{AnyState, Calendar, Companions, Fact, Moment, Stream, StreamKind};
    use jiff::Timestamp;

    use super::*;

    /// After the days of the receipts.
    const NOW: Timestamp = Timestamp::constant(1_790_000_000, 0);

    struct Nobody;

    impl Companions for Nobody {
        fn find(&self, _: StreamRef) -> Option<&dyn std::any::Any> {
            None
        }
    }

    fn decided<S: Stream>(state: &S::State, command: S::Command) -> Vec<S::Event> {
        let calendar = Calendar::taipei();
        let at = Moment::new(derived_id(&["here"]), NOW, NOW, &calendar, &Nobody);
        S::decide(state, command, &at).unwrap()
    }

    fn has_about_420_bytes(event: impl Into<Fact>) {
        let bytes = event.into().encode().1.len();
        assert!((380..=460).contains(&bytes), "{bytes} bytes");
    }

    #[test]
    fn events_have_about_420_bytes() {
        for n in [1, 77_777, 9_999_999] {
            has_about_420_bytes(decided::<purchase::Purchase>(&Default::default(), receipt("b1", n, None)).remove(0));
            has_about_420_bytes(decided::<customer::Customer>(&Default::default(), register("b1", n, 3)).remove(0));
            let (_, contact) = contact("b1", n);
            let recorded = decided::<interaction::Interaction>(&Default::default(), contact).remove(0);
            let state = AnyState::initial(StreamKind::Interaction).evolve(&recorded.into(), NOW);
            let AnyState::Interaction(state) = state else {
                unreachable!()
            };
            has_about_420_bytes(decided::<interaction::Interaction>(&state, correction(n)).remove(0));
        }
    }
}
