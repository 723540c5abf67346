//! Clusters that cannot commit, members that others cannot reach, questions that are interrupted.
