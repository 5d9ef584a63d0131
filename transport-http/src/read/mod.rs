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

pub(crate) use fields::{Fields, Problems};
pub(crate) use json::{Json, Malformed, Number};
pub(crate) use output::{Output, output};
pub(crate) use packed::packed;
pub(crate) use query::Query;
pub(crate) use report::{Kind as ReportKind, Report, report, reports};
pub(crate) use spec::{Execution, Submit, batch, execution, execution_form, single};
pub(crate) use worker::{Beat, beat, registration};
