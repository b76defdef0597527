//! A TCP port forwarder that reloads without dropping a session.
//!
//! Data flows one way: a [`provider`] says what to forward, a [`table`] is the snapshot of it,
//! [`listen`] keeps sockets in step, a [`session`] is one client connection and its [`relay`]
//! moves the bytes. The threads that drive all of that are [`worker`]s.

#![forbid(unsafe_code)]

pub mod table;
pub mod telemetry;
