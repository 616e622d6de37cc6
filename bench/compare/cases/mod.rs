//! Owns the three cases that load balancers tend to handle badly, with backends that serve one request at a
//! time. Each is a file of its own and ends in a table.

mod black_hole;
mod busy;
mod leavers;

use std::rc::Rc;

use anyhow::Result;

use crate::contenders::{Contender, Setting};
use crate::table::Table;

/// A case as it went.
pub struct Case {
    pub title: &'static str,
    /// What was done, and what the columns count.
    pub text: String,
    pub table: Table,
}

/// Runs all three, as long as they take or shortened.
pub async fn run(
    setting: &Rc<Setting>,
    contenders: &[Contender],
    quick: bool,
) -> Result<Vec<Case>> {
    Ok(vec![
        black_hole::run(setting, contenders).await?,
        busy::run(setting, contenders, quick).await?,
        leavers::run(setting, contenders, quick).await?,
    ])
}
