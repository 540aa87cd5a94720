//! Writers and readers of files: pprof, folded stacks, flamegraphs.
