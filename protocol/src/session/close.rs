//! Why a session was closed: codes of the WebSocket's close frame (RFC 6455, 7.4; 4000 and above are ours).

/// The gateway goes away; dial again at the time that `goaway` reserved.
pub const GOING_AWAY: u16 = 1001;
/// Not a frame, or a frame where none of its kind may come; or messages were lost or changed on the way.
pub const MALFORMED: u16 = 4400;
/// The token is wrong or has expired; read it again.
pub const UNAUTHENTICATED: u16 = 4401;
/// The token is for another agent.
pub const FORBIDDEN: u16 = 4403;
/// No hello in time, or silence for longer than 1.5 T + 5 s.
pub const TIMEOUT: u16 = 4408;
/// A newer session of this agent has taken over.
pub const FENCED: u16 = 4409;
/// A message is longer than its limit.
pub const TOO_LARGE: u16 = 4413;
/// Records out of order, or with a hole that no gap explains; outcomes that do not follow what was told.
pub const SEQUENCE: u16 = 4422;
/// The two sides speak no common protocol.
pub const PROTOCOL: u16 = 4426;
/// The peer does not read.
pub const SLOW: u16 = 4429;
/// A bug of the gateway.
pub const INTERNAL: u16 = 4500;
/// The gateway cannot store; nothing that was not acknowledged is lost.
pub const STORE: u16 = 4503;
