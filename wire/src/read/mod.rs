//! Reading requests field by field: every wrong field is named, all of them at once, and nobody's body can hurt.
//!
//! `json` makes a tree out of bytes and refuses what is no JSON (400); `fields` takes typed values out of an object and
//! collects what is wrong with them (422); the other rooms know the fields of one exchange each.

mod fields;
mod json;
mod output;
mod packed;
mod query;
mod report;
mod spec;
mod worker;

pub use fields::{Fields, Problems};
pub use json::{Json, Malformed, Number};
pub use output::{Output, output};
pub use packed::packed;
pub use query::Query;
pub use report::{Kind as ReportKind, Report, report, reports};
pub use spec::{Execution, Submit, batch, execution, execution_form, single};
pub use worker::{Beat, beat, registration};
