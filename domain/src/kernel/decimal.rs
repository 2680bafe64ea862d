//! Decimals as text.

use rust_decimal::Decimal;

/// Reads digits, with a minus before them and a point among them: `-2.55`. `None` for everything else that some parser takes for a
/// number, such as `2_55`, `1e3`, `+1` or `.5`, and for more digits than a decimal has.
pub fn exact_decimal(text: &str) -> Option<Decimal> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(whole) || !are_digits(fraction) {
        return None;
    }
    Decimal::from_str_exact(text).ok()
}

#[cfg(test)]
mod specs {
    use super::*;

    #[test]
    fn a_decimal_has_digits_a_minus_and_a_point_and_nothing_else() {
        for text in ["0", "2.55", "-0.350", "00.10", "7922816251426433759354395033"] {
            assert_eq!(exact_decimal(text), Some(text.parse().unwrap()), "{text:?}");
        }
        let wrong = [
            "",
            "-",
            ".",
            ".5",
            "5.",
            "+1",
            "2_55",
            "1_0",
            "1e3",
            "0x10",
            "--1",
            "1.2.3",
            "1,5",
            " 1",
            "1 ",
            "\u{ff11}",
            "1.23456789012345678901234567890",
        ];
        for text in wrong {
            assert_eq!(exact_decimal(text), None, "{text:?}");
        }
    }
}
