//! Several changes of one node, other members that live, backups of other nodes and addresses.
