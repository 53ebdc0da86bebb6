//! Rights, versions of the API, answers that are lost, hooks, shards.
