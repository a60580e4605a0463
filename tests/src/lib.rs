//! What the end-to-end tests share: requirements, guards, and the built binary under test.
