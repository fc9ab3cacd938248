//! Makes whoever tells others say something at least so often, so that silence is known from quiet. It must not know what is told.

use std::time::Duration;

use futures::stream::{BoxStream, StreamExt, unfold};

/// Whoever follows takes four times as long for silence.
const BEAT: Duration = Duration::from_millis(250);

/// What is told, and what `beat` makes of the last of it whenever there was nothing for a while.
pub(crate) fn beating<T: Send + 'static>(
    items: BoxStream<'static, T>,
    beat: fn(&T) -> T,
) -> BoxStream<'static, T> {
    let next = move |(mut items, last): (BoxStream<'static, T>, Option<T>)| async move {
        let told = host::clock::timeout(BEAT, items.next()).await;
        let item = match (told, last) {
            (Ok(item), _) => item?,
            (Err(_), Some(last)) => last,
            (Err(_), None) => items.next().await?,
        };
        let last = beat(&item);
        Some((item, (items, Some(last))))
    };
    unfold((items, None), next).boxed()
}
