//! The engine without SIP.
