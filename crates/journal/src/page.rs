//! The worked examples of docs/formats, for the tests that compare them with what the code writes.
//! It must not know what the bytes mean.

use bytes::Bytes;

/// The hexadecimal dump that follows the fence of this name on a page, without remarks.
pub(crate) fn dump(page: &str, fence: &str) -> Bytes {
    let (_, rest) = page
        .split_once(&format!("```{fence}\n"))
        .expect("the page has the example");
    let (dump, _) = rest.split_once("```").expect("the example ends");
    dump.lines()
        .flat_map(|line| line.split('|').next().unwrap_or("").split_whitespace())
        .map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits"))
        .collect()
}
