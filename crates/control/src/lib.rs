//! The control node: leads or follows a journal, answers agents.
