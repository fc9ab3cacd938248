//! Buckets and files: bytes in object storage.
