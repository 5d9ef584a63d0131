//! Where the launcher could not be built: there never is one.

use std::io;
use std::os::fd::OwnedFd;

use super::Options;
use super::plain::Running;
use crate::executor::Plan;
use crate::executor::{Limit, RunContext};

#[derive(Debug)]
pub(super) enum Launched {}

pub(super) struct Ability {
    pub(super) limits: Vec<Limit>,
    pub(super) users: bool,
}

#[expect(clippy::unused_async, reason = "as the launcher has them")]
impl Launched {
    pub(super) fn start(_: &Options, _: Option<u32>) -> Option<(Self, Ability)> {
        None
    }

    pub(super) async fn run(
        &self,
        _: &RunContext,
        _: &Plan,
        _: Option<u32>,
        _: OwnedFd,
        _: OwnedFd,
    ) -> Result<Running, String> {
        match *self {}
    }

    pub(super) async fn clear(&self, _: u32) {
        match *self {}
    }

    pub(super) fn renew(&self) -> io::Result<()> {
        match *self {}
    }

    pub(super) async fn stop(&self) {
        match *self {}
    }
}
