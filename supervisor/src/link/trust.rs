//! What the gateway's welcome says that calls past the session are checked with.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::session::Welcome;

use crate::machine::clock;

/// Keys are of the newest session; they stay in use when it ends, until the next welcome. The time is the gateway's, carried
/// on by the boot clock, so a wrong or changed date here opens and closes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    keys: Vec<(String, [u8; 32])>,
    /// The gateway's clock less our boot clock.
    ahead_ms: i64,
    /// By our boot clock: when this supervisor's first session began.
    since_boot_ms: i64,
}

impl Trust {
    /// From this welcome on.
    pub(crate) fn new(welcome: &Welcome, before: Option<&Trust>) -> Trust {
        let boot_ms = clock::boot_ms();
        let ahead_ms = welcome.now_ms.saturating_sub(boot_ms);
        let since_boot_ms = before.map_or(boot_ms, |before| before.since_boot_ms);
        let keys = welcome.keys.iter().filter_map(|key| {
            let bytes = URL_SAFE_NO_PAD.decode(&key.x).ok()?.try_into().ok()?;
            Some((key.kid.clone(), bytes))
        });
        Trust { keys: keys.collect(), ahead_ms, since_boot_ms }
    }

    /// The public key of that name.
    pub fn key(&self, kid: &str) -> Option<&[u8; 32]> {
        self.keys.iter().find(|(name, _)| name == kid).map(|(_, key)| key)
    }

    /// Whether calls can be checked at all.
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// What the gateway's clock says, ms since 1970.
    pub fn now_ms(&self) -> i64 {
        clock::boot_ms().saturating_add(self.ahead_ms)
    }

    /// What was signed before this, ms since 1970 by the gateway's clock, may have been used on the supervisor before this one.
    pub fn since_ms(&self) -> i64 {
        self.since_boot_ms.saturating_add(self.ahead_ms)
    }
}
