//! Judges client histories: which anomalies of a Kafka-like log do they show?
//!
//! Lines go in one by one ([`Checker::observe`]) and become tables; [`Checker::finish`] builds the version order of every
//! key and runs one function per family of anomalies over them. The anomalies and their names are those of
//! `docs/formats/history.md`; most come from Jepsen's Kafka workload. Must not know which server or which clients made
//! the history.

mod groups;
mod order;
mod polls;
mod report;
mod strong;
mod tables;
mod transactions;
mod watermarks;
mod writes;

#[cfg(test)]
mod tests;

pub use report::{Counts, Example, Found, Report};

use crate::history::{Header, Line};
use order::Orders;
use report::Findings;
use tables::Tables;

/// How long a consumer may lag after healing where the header does not say.
const LAG_BOUND_DEFAULT_US: u64 = 30_000_000;

/// The offset-by-offset judge of one history.
pub struct Checker {
    header: Header,
    tables: Tables,
}

impl Checker {
    /// A checker for a history that begins with `header`.
    pub fn new(header: Header) -> Self {
        Checker {
            header,
            tables: Tables::default(),
        }
    }

    /// Takes the next line; the error says why the line cannot follow the ones before it.
    pub fn observe(&mut self, line: Line) -> Result<(), String> {
        self.tables.observe(line)
    }

    /// Judges what was observed.
    pub fn finish(self) -> Report {
        let Checker { header, mut tables } = self;
        tables.close();
        let orders = Orders::build(&tables);
        let mut findings = Findings::default();
        check_vacuous(&header, &tables, &mut findings);
        writes::check(&tables, &orders, &mut findings);
        polls::check(&tables, &orders, &mut findings);
        polls::check_lag(
            &tables,
            &orders,
            header.lag_bound_us.unwrap_or(LAG_BOUND_DEFAULT_US),
            &mut findings,
        );
        polls::check_final(&tables, &mut findings);
        transactions::check(&header, &tables, &orders, &mut findings);
        groups::check(&tables, &orders, &mut findings);
        watermarks::check(&header, &tables, &orders, &mut findings);
        findings.into_report(tables.counts())
    }
}

/// Judges a whole history held in memory.
pub fn check_lines(
    header: Header,
    lines: impl IntoIterator<Item = Line>,
) -> Result<Report, String> {
    let mut checker = Checker::new(header);
    for line in lines {
        checker.observe(line)?;
    }
    Ok(checker.finish())
}

fn check_vacuous(header: &Header, tables: &Tables, findings: &mut Findings) {
    let counts = tables.counts();
    let mut vacuous = |what: &str| findings.anomaly("vacuous", what.to_owned(), []);
    if counts.acknowledged == 0 {
        vacuous("no send was acknowledged");
    }
    if counts.polled == 0 {
        vacuous("no record was polled");
    }
    if counts.finals == 0 {
        vacuous("no final phase was completed");
    }
    if header.faults && counts.faults == 0 {
        vacuous("faults were promised and none was injected");
    }
}
