//! The push channel: both services over one WebSocket.
