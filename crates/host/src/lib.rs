//! OS time, entropy, sockets and task spawning.
