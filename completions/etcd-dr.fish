complete --keep-order --exclusive --command etcd-dr --arguments "(_ETCD_DR_COMPLETE=fish etcd-dr -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
