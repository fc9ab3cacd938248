//! Dates as HTTP and XML write them. It must not know the time.

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// As in `Last-Modified`: `Sat, 21 Nov 2026 13:28:24 GMT`.
pub(super) fn http(ms: u64) -> String {
    let (days, (hour, minute, second)) = split(ms);
    let (year, month, day) = civil(days);
    let weekday = DAYS[(days % 7) as usize];
    let month = MONTHS[month as usize - 1];
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// As in a listing: `2026-11-21T13:28:24.007Z`.
pub(super) fn xml(ms: u64) -> String {
    let (days, (hour, minute, second)) = split(ms);
    let (year, month, day) = civil(days);
    let milli = ms % 1_000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

fn split(ms: u64) -> (u64, (u64, u64, u64)) {
    let seconds = ms / 1_000;
    let of_day = seconds % 86_400;
    (
        seconds / 86_400,
        (of_day / 3_600, of_day / 60 % 60, of_day % 60),
    )
}

/// Year, month and day from days since 1970, in the Gregorian calendar. Years are counted from
/// March, so that the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        assert_eq!(http(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(xml(951_782_400_007), "2000-02-29T00:00:00.007Z");
        assert_eq!(http(1_795_267_704_000), "Sat, 21 Nov 2026 13:28:24 GMT");
    }
}
