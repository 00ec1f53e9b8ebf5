//! What is done to the real programs while they work, and what becomes of their records then.
//!
//! Each run is the same story: supervisors under [`load`] at a gateway, a fault at an instant that nobody has chosen, again and
//! again; then [`account`] holds what the gateway has to what was produced, and to what clients were told: produced =
//! delivered + gaps. [`kills`] are kill -9 of either end; [`gateways`] are several, and what befalls them; [`twins`] two supervisors of one sandbox; [`power`] takes what was not synced along.
//! [`mod@disk`] has calls that a disk does not do as it should; [`mod@calls`] is a kernel that refuses; [`faults`] what network, scheduler and neighbours do; [`rotation`] other
//! secrets, [`rolling`] other gateways.
//! [`hostile`] has no records: clients that mean harm, and what others see of it. [`probes`], [`sweep`] and [`mutations`] are of the confinement. Instants are [`chance`], and a run can be
//! had again by its seed.

pub mod account;
pub mod calls;
pub mod chance;
pub mod disk;
pub mod faults;
pub mod forgetful;
pub mod gateways;
pub mod hostile;
pub mod kills;
pub mod load;
pub mod mutations;
pub mod power;
pub mod probes;
pub mod rolling;
pub mod rotation;
pub mod simulation;
pub mod sweep;
pub mod trees;
pub mod twins;
mod wire;
