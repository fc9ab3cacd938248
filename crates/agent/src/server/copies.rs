//! Starts what an agent does for files after their commit: copies beyond those that the commit needed, and the deletion of what is over. It
//! must not know how either is done.

use std::sync::Arc;

use host::task::Task;
use store::buckets::Buckets;

use crate::context::Context;
use crate::data::collect;
use crate::data::copies::repair;
use crate::data::copies::report::{Reports, TELL_AFTER};
use crate::data::copies::run::Repairer;
use crate::data::copies::turn::sees_to;
use crate::data::copies::watch::{Own, Watcher};

/// Rids each bucket of files that nobody needs.
pub(super) fn collect(context: &Arc<Context>, buckets: &Arc<Buckets>) -> Vec<Task<()>> {
    let settings = &context.settings;
    let limits = collect::Limits {
        interval: settings.collect_interval,
        list_interval: settings.collect_list_interval,
        grace: settings.file_delete_grace,
    };
    let place = |number: u32| {
        let (context, states) = (Arc::clone(context), Arc::clone(buckets));
        let is_seen_to = move || {
            let view = context.views.latest();
            let seen_to = sees_to(context.agent, &view.agents, &states.states());
            states.is_usable(number) && seen_to.contains(&number)
        };
        Some(collect::Place {
            bucket: buckets.by_itself(number)?,
            number,
            is_seen_to: Box::new(is_seen_to),
        })
    };
    let places: Vec<_> = match buckets.numbers().as_slice() {
        [number] => vec![collect::Place {
            bucket: Arc::<Buckets>::clone(buckets),
            number: *number,
            is_seen_to: Box::new(|| true),
        }],
        numbers => numbers.iter().filter_map(|number| place(*number)).collect(),
    };
    let start = |place| {
        let (control, metrics) = (context.control.clone(), Arc::clone(&context.metrics));
        let collector = collect::Collector::new(place, control, metrics, limits);
        host::task::spawn("collect", collector.run())
    };
    places.into_iter().map(start).collect()
}

/// Tells of copies that came after the commit, and makes those that lack.
pub(super) fn see_to_them(
    context: &Arc<Context>,
    buckets: &Arc<Buckets>,
    reports: Arc<Reports>,
) -> [Task<()>; 3] {
    let (control, metrics) = (&context.control, &context.metrics);
    let pipeline = Arc::clone(&context.pipeline);
    let own = move || pipeline.incarnation();
    let telling = Arc::clone(&reports).run(control.clone(), own, Arc::clone(metrics));
    let watching = watch(context, buckets, &reports);
    let repairer = Repairer::new(
        Arc::clone(buckets),
        control.clone(),
        reports,
        Arc::clone(metrics),
    );
    let settings = &context.settings;
    let limits = repair::Limits {
        bytes_per_second: settings.repair_bytes_per_second,
        files_per_second: settings.repair_files_per_second,
        // By then it is made, and told, or given up.
        grace: settings.upload_timeout + 2 * TELL_AFTER,
    };
    let (context, states) = (Arc::clone(context), Arc::clone(buckets));
    let repairing = repairer.run(limits, move || {
        let view = context.views.latest();
        sees_to(context.agent, &view.agents, &states.states())
    });
    [
        host::task::spawn("reports", async move { match telling.await {} }),
        host::task::spawn("repair", async move { match repairing.await {} }),
        watching,
    ]
}

/// Looks whether buckets hold what they are known to hold.
fn watch(context: &Arc<Context>, buckets: &Arc<Buckets>, reports: &Arc<Reports>) -> Task<()> {
    let watcher = Watcher {
        buckets: Arc::clone(buckets),
        control: context.control.clone(),
        reports: Arc::clone(reports),
        doubtful: Arc::clone(context.reader.doubtful()),
        metrics: Arc::clone(&context.metrics),
        files_per_second: context.settings.repair_files_per_second,
    };
    let (context, states) = (Arc::clone(context), Arc::clone(buckets));
    let watching = async move {
        let own = Own {
            incarnation: &|| context.pipeline.incarnation(),
            sees_to: &|| {
                let view = context.views.latest();
                sees_to(context.agent, &view.agents, &states.states())
            },
        };
        match watcher.run(own).await {}
    };
    host::task::spawn("bucket watch", watching)
}
