# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_etcd_dr_global_optspecs
    string join \n root= config= profile= node-name= endpoints= cacert= cert= key= o/output= progress= color= v/verbose h/help V/version
end

function __fish_etcd_dr_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_etcd_dr_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_etcd_dr_using_subcommand
    set -l cmd (__fish_etcd_dr_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -l root -d 'The node\'s file system; for an `oc debug node` shell, /host' -r -f -a "(__fish_complete_directories)"
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -l config -d 'Configuration file [default: /etc/etcd-dr/config.toml, if present]' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -l profile -d 'Where manifests, certificates and data lie [default: auto]' -r -f -a "auto\t'Look which it is'
openshift\t'OpenShift\'s static pods and their revisions'
kubeadm\t'kubeadm\'s manifests and PKI'
bare\t'An etcd with no static pods: everything from options'"
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -l node-name -d 'This node\'s name, where its addresses do not tell it' -r
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -l endpoints -d 'etcd\'s client URLs; of several a snapshot uses the local member\'s' -r -f
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -l cacert -d 'CA bundle that etcd\'s certificate is checked with' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -l cert -d 'Client certificate' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -l key -d 'Client key' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -s o -l output -d 'Form of the result on standard output' -r -f -a "text\t'For people; may change'
json\t'One versioned JSON document'"
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -l progress -d 'Progress on standard error; json: one event a line' -r -f -a "auto\t'A bar on a terminal, a line every few seconds elsewhere'
always\t'Lines, also on a terminal'
never\t'None'
json\t'One JSON event a line'"
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -l color -d 'Colours; NO_COLOR is honoured' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -s v -l verbose -d 'More detail; secrets are never shown'
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -s V -l version -d 'Print version'
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -f -a "backup" -d 'Take a backup of etcd and of the static-pod resources in use'
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -f -a "list" -d 'Show every backup in a store'
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -f -a "verify" -d 'Check backups, offline: which layer is broken, and where'
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -f -a "restore" -d 'Make a data directory from a backup, as `etcdutl snapshot restore` does'
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -f -a "member-add" -d 'Add a member: as a learner first, promoted once it has caught up'
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -f -a "member-remove" -d 'Remove a member, if the quorum bears it'
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -f -a "member-update" -d 'Give a member other peer URLs, after its address has changed'
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -f -a "completions" -d 'Print a completion script'
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -f -a "man" -d 'Print a manual page'
complete -c etcd-dr -n "__fish_etcd_dr_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand backup" -l flat -d 'Write the plain files into DIR, as cluster-backup.sh does' -r -f -a "(__fish_complete_directories)"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand backup" -l if-older-than -d 'Do nothing if a good backup is younger than this (30m, 1h, 1d)' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand backup" -l allow -d 'Go on although this check fails; the backup is marked dirty' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand backup" -l max-rate -d 'At most this many bytes a second (50MiB)' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand backup" -l stall-timeout -d 'Give up when nothing has come for this long [default: 30s]' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand backup" -l root -d 'The node\'s file system; for an `oc debug node` shell, /host' -r -f -a "(__fish_complete_directories)"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand backup" -l config -d 'Configuration file [default: /etc/etcd-dr/config.toml, if present]' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand backup" -l profile -d 'Where manifests, certificates and data lie [default: auto]' -r -f -a "auto\t'Look which it is'
openshift\t'OpenShift\'s static pods and their revisions'
kubeadm\t'kubeadm\'s manifests and PKI'
bare\t'An etcd with no static pods: everything from options'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand backup" -l node-name -d 'This node\'s name, where its addresses do not tell it' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand backup" -l endpoints -d 'etcd\'s client URLs; of several a snapshot uses the local member\'s' -r -f
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand backup" -l cacert -d 'CA bundle that etcd\'s certificate is checked with' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand backup" -l cert -d 'Client certificate' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand backup" -l key -d 'Client key' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand backup" -s o -l output -d 'Form of the result on standard output' -r -f -a "text\t'For people; may change'
json\t'One versioned JSON document'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand backup" -l progress -d 'Progress on standard error; json: one event a line' -r -f -a "auto\t'A bar on a terminal, a line every few seconds elsewhere'
always\t'Lines, also on a terminal'
never\t'None'
json\t'One JSON event a line'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand backup" -l color -d 'Colours; NO_COLOR is honoured' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand backup" -l force -d 'Go on whichever quality check fails, as cluster-backup.sh --force'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand backup" -l check-members -d 'Compare the data of all members (costs each a full scan)'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand backup" -s v -l verbose -d 'More detail; secrets are never shown'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand backup" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand list" -l stale-after -d 'Exit with 11 if the newest good backup is older than this (2h)' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand list" -l root -d 'The node\'s file system; for an `oc debug node` shell, /host' -r -f -a "(__fish_complete_directories)"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand list" -l config -d 'Configuration file [default: /etc/etcd-dr/config.toml, if present]' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand list" -l profile -d 'Where manifests, certificates and data lie [default: auto]' -r -f -a "auto\t'Look which it is'
openshift\t'OpenShift\'s static pods and their revisions'
kubeadm\t'kubeadm\'s manifests and PKI'
bare\t'An etcd with no static pods: everything from options'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand list" -l node-name -d 'This node\'s name, where its addresses do not tell it' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand list" -l endpoints -d 'etcd\'s client URLs; of several a snapshot uses the local member\'s' -r -f
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand list" -l cacert -d 'CA bundle that etcd\'s certificate is checked with' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand list" -l cert -d 'Client certificate' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand list" -l key -d 'Client key' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand list" -s o -l output -d 'Form of the result on standard output' -r -f -a "text\t'For people; may change'
json\t'One versioned JSON document'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand list" -l progress -d 'Progress on standard error; json: one event a line' -r -f -a "auto\t'A bar on a terminal, a line every few seconds elsewhere'
always\t'Lines, also on a terminal'
never\t'None'
json\t'One JSON event a line'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand list" -l color -d 'Colours; NO_COLOR is honoured' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand list" -s v -l verbose -d 'More detail; secrets are never shown'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand verify" -l data-dir -d 'A stopped member\'s data directory instead of a backup' -r -f -a "(__fish_complete_directories)"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand verify" -l compare -d 'Reports that --data-dir gave as JSON, one a member: name the one whose data is the best to go on with' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand verify" -l wal-dir -d 'That member\'s WAL, where it has a directory of its own' -r -f -a "(__fish_complete_directories)"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand verify" -l store -d 'The directory that holds the backups [default: /etc/kubernetes/static-pod-backups]' -r -f -a "(__fish_complete_directories)"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand verify" -l root -d 'The node\'s file system; for an `oc debug node` shell, /host' -r -f -a "(__fish_complete_directories)"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand verify" -l config -d 'Configuration file [default: /etc/etcd-dr/config.toml, if present]' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand verify" -l profile -d 'Where manifests, certificates and data lie [default: auto]' -r -f -a "auto\t'Look which it is'
openshift\t'OpenShift\'s static pods and their revisions'
kubeadm\t'kubeadm\'s manifests and PKI'
bare\t'An etcd with no static pods: everything from options'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand verify" -l node-name -d 'This node\'s name, where its addresses do not tell it' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand verify" -l endpoints -d 'etcd\'s client URLs; of several a snapshot uses the local member\'s' -r -f
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand verify" -l cacert -d 'CA bundle that etcd\'s certificate is checked with' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand verify" -l cert -d 'Client certificate' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand verify" -l key -d 'Client key' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand verify" -s o -l output -d 'Form of the result on standard output' -r -f -a "text\t'For people; may change'
json\t'One versioned JSON document'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand verify" -l progress -d 'Progress on standard error; json: one event a line' -r -f -a "auto\t'A bar on a terminal, a line every few seconds elsewhere'
always\t'Lines, also on a terminal'
never\t'None'
json\t'One JSON event a line'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand verify" -l color -d 'Colours; NO_COLOR is honoured' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand verify" -l all -d 'Every backup in the store'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand verify" -l cluster -d 'What stands in the way of the running cluster: members, votes, names, addresses, certificates, clocks, space'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand verify" -l live -d 'Compare with the running member too: HashKV at the backup\'s revision'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand verify" -s v -l verbose -d 'More detail; secrets are never shown'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l from-data-dir -d 'A stopped member\'s data directory instead of a backup: becomes a cluster of that member alone, with all of its log' -r -f -a "(__fish_complete_directories)"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l from-wal-dir -d 'That member\'s WAL, where it has a directory of its own' -r -f -a "(__fish_complete_directories)"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l data-dir -d 'The directory to make; absent, or there and empty' -r -f -a "(__fish_complete_directories)"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l wal-dir -d 'A directory of its own for the write-ahead log; must be absent [default: member/wal in the data directory]' -r -f -a "(__fish_complete_directories)"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l name -d 'The member\'s name [default: default; of --from-data-dir its own]' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l initial-cluster -d 'All members of the new cluster: name=url,name2=url2' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l initial-cluster-token -d 'What the new ids are made from [default: random, for one member]' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l initial-advertise-peer-urls -l peer-urls -d 'The member\'s own peer URLs [default: http://localhost:2380; of --from-data-dir those it had]' -r -f
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l bump-revision -d 'Raise the revision: auto, above all that is known to have been served; N, by so many; 0, not at all [default: auto, for one member]' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l target-version -d 'The etcd that is to start, if not the backup\'s or a later one: 3.4, 3.5, 3.6 or 3.7' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l allow -d 'Go on although this is refused' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l store -d 'The directory that holds the backups [default: /etc/kubernetes/static-pod-backups]' -r -f -a "(__fish_complete_directories)"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l root -d 'The node\'s file system; for an `oc debug node` shell, /host' -r -f -a "(__fish_complete_directories)"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l config -d 'Configuration file [default: /etc/etcd-dr/config.toml, if present]' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l profile -d 'Where manifests, certificates and data lie [default: auto]' -r -f -a "auto\t'Look which it is'
openshift\t'OpenShift\'s static pods and their revisions'
kubeadm\t'kubeadm\'s manifests and PKI'
bare\t'An etcd with no static pods: everything from options'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l node-name -d 'This node\'s name, where its addresses do not tell it' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l endpoints -d 'etcd\'s client URLs; of several a snapshot uses the local member\'s' -r -f
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l cacert -d 'CA bundle that etcd\'s certificate is checked with' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l cert -d 'Client certificate' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l key -d 'Client key' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -s o -l output -d 'Form of the result on standard output' -r -f -a "text\t'For people; may change'
json\t'One versioned JSON document'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l progress -d 'Progress on standard error; json: one event a line' -r -f -a "auto\t'A bar on a terminal, a line every few seconds elsewhere'
always\t'Lines, also on a terminal'
never\t'None'
json\t'One JSON event a line'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l color -d 'Colours; NO_COLOR is honoured' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l skip-hash-check -d 'Take a snapshot whose SHA-256 is wrong or not there'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l mark-compacted -d 'Make watchers of older revisions list anew; needed with N'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -l compact -d 'Write the database anew, without what was deleted from it'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -s v -l verbose -d 'More detail; secrets are never shown'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand restore" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-add" -l peer-urls -d 'Where the other members will reach it: https://ADDRESS:2380' -r -f
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-add" -l wait -d 'Give up when it does not vote after this long, and remove it again' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-add" -l print -d 'Print what the new member must start with, and nothing else' -r -f -a "env\t'ETCD_NAME="…" and so on, a line each'
flags\t'etcd\'s flags, on one line'
pod\t'Items for a static pod\'s command, in YAML'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-add" -l allow -d 'Go on although this is refused' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-add" -l root -d 'The node\'s file system; for an `oc debug node` shell, /host' -r -f -a "(__fish_complete_directories)"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-add" -l config -d 'Configuration file [default: /etc/etcd-dr/config.toml, if present]' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-add" -l profile -d 'Where manifests, certificates and data lie [default: auto]' -r -f -a "auto\t'Look which it is'
openshift\t'OpenShift\'s static pods and their revisions'
kubeadm\t'kubeadm\'s manifests and PKI'
bare\t'An etcd with no static pods: everything from options'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-add" -l node-name -d 'This node\'s name, where its addresses do not tell it' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-add" -l endpoints -d 'etcd\'s client URLs; of several a snapshot uses the local member\'s' -r -f
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-add" -l cacert -d 'CA bundle that etcd\'s certificate is checked with' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-add" -l cert -d 'Client certificate' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-add" -l key -d 'Client key' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-add" -s o -l output -d 'Form of the result on standard output' -r -f -a "text\t'For people; may change'
json\t'One versioned JSON document'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-add" -l progress -d 'Progress on standard error; json: one event a line' -r -f -a "auto\t'A bar on a terminal, a line every few seconds elsewhere'
always\t'Lines, also on a terminal'
never\t'None'
json\t'One JSON event a line'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-add" -l color -d 'Colours; NO_COLOR is honoured' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-add" -l no-learner -d 'Add it with a vote at once: the quorum counts it before it runs'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-add" -l no-promote -d 'Add it and return: it stays a learner'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-add" -l dry-run -d 'Show what would be done, and change nothing'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-add" -s v -l verbose -d 'More detail; secrets are never shown'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-add" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-remove" -l wait -d 'How long to wait until no member lists it any more' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-remove" -l allow -d 'Go on although this is refused' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-remove" -l root -d 'The node\'s file system; for an `oc debug node` shell, /host' -r -f -a "(__fish_complete_directories)"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-remove" -l config -d 'Configuration file [default: /etc/etcd-dr/config.toml, if present]' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-remove" -l profile -d 'Where manifests, certificates and data lie [default: auto]' -r -f -a "auto\t'Look which it is'
openshift\t'OpenShift\'s static pods and their revisions'
kubeadm\t'kubeadm\'s manifests and PKI'
bare\t'An etcd with no static pods: everything from options'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-remove" -l node-name -d 'This node\'s name, where its addresses do not tell it' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-remove" -l endpoints -d 'etcd\'s client URLs; of several a snapshot uses the local member\'s' -r -f
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-remove" -l cacert -d 'CA bundle that etcd\'s certificate is checked with' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-remove" -l cert -d 'Client certificate' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-remove" -l key -d 'Client key' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-remove" -s o -l output -d 'Form of the result on standard output' -r -f -a "text\t'For people; may change'
json\t'One versioned JSON document'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-remove" -l progress -d 'Progress on standard error; json: one event a line' -r -f -a "auto\t'A bar on a terminal, a line every few seconds elsewhere'
always\t'Lines, also on a terminal'
never\t'None'
json\t'One JSON event a line'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-remove" -l color -d 'Colours; NO_COLOR is honoured' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-remove" -s y -l yes -d 'Do not ask'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-remove" -l dry-run -d 'Show what would be done, and change nothing'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-remove" -s v -l verbose -d 'More detail; secrets are never shown'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-remove" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-update" -l peer-urls -d 'Where the other members will reach it from now on' -r -f
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-update" -l allow -d 'Go on although this is refused' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-update" -l root -d 'The node\'s file system; for an `oc debug node` shell, /host' -r -f -a "(__fish_complete_directories)"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-update" -l config -d 'Configuration file [default: /etc/etcd-dr/config.toml, if present]' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-update" -l profile -d 'Where manifests, certificates and data lie [default: auto]' -r -f -a "auto\t'Look which it is'
openshift\t'OpenShift\'s static pods and their revisions'
kubeadm\t'kubeadm\'s manifests and PKI'
bare\t'An etcd with no static pods: everything from options'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-update" -l node-name -d 'This node\'s name, where its addresses do not tell it' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-update" -l endpoints -d 'etcd\'s client URLs; of several a snapshot uses the local member\'s' -r -f
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-update" -l cacert -d 'CA bundle that etcd\'s certificate is checked with' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-update" -l cert -d 'Client certificate' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-update" -l key -d 'Client key' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-update" -s o -l output -d 'Form of the result on standard output' -r -f -a "text\t'For people; may change'
json\t'One versioned JSON document'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-update" -l progress -d 'Progress on standard error; json: one event a line' -r -f -a "auto\t'A bar on a terminal, a line every few seconds elsewhere'
always\t'Lines, also on a terminal'
never\t'None'
json\t'One JSON event a line'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-update" -l color -d 'Colours; NO_COLOR is honoured' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-update" -l dry-run -d 'Show what would be done, and change nothing'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-update" -s v -l verbose -d 'More detail; secrets are never shown'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand member-update" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand completions" -l root -d 'The node\'s file system; for an `oc debug node` shell, /host' -r -f -a "(__fish_complete_directories)"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand completions" -l config -d 'Configuration file [default: /etc/etcd-dr/config.toml, if present]' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand completions" -l profile -d 'Where manifests, certificates and data lie [default: auto]' -r -f -a "auto\t'Look which it is'
openshift\t'OpenShift\'s static pods and their revisions'
kubeadm\t'kubeadm\'s manifests and PKI'
bare\t'An etcd with no static pods: everything from options'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand completions" -l node-name -d 'This node\'s name, where its addresses do not tell it' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand completions" -l endpoints -d 'etcd\'s client URLs; of several a snapshot uses the local member\'s' -r -f
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand completions" -l cacert -d 'CA bundle that etcd\'s certificate is checked with' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand completions" -l cert -d 'Client certificate' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand completions" -l key -d 'Client key' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand completions" -s o -l output -d 'Form of the result on standard output' -r -f -a "text\t'For people; may change'
json\t'One versioned JSON document'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand completions" -l progress -d 'Progress on standard error; json: one event a line' -r -f -a "auto\t'A bar on a terminal, a line every few seconds elsewhere'
always\t'Lines, also on a terminal'
never\t'None'
json\t'One JSON event a line'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand completions" -l color -d 'Colours; NO_COLOR is honoured' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand completions" -s v -l verbose -d 'More detail; secrets are never shown'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand man" -l root -d 'The node\'s file system; for an `oc debug node` shell, /host' -r -f -a "(__fish_complete_directories)"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand man" -l config -d 'Configuration file [default: /etc/etcd-dr/config.toml, if present]' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand man" -l profile -d 'Where manifests, certificates and data lie [default: auto]' -r -f -a "auto\t'Look which it is'
openshift\t'OpenShift\'s static pods and their revisions'
kubeadm\t'kubeadm\'s manifests and PKI'
bare\t'An etcd with no static pods: everything from options'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand man" -l node-name -d 'This node\'s name, where its addresses do not tell it' -r
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand man" -l endpoints -d 'etcd\'s client URLs; of several a snapshot uses the local member\'s' -r -f
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand man" -l cacert -d 'CA bundle that etcd\'s certificate is checked with' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand man" -l cert -d 'Client certificate' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand man" -l key -d 'Client key' -r -F
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand man" -s o -l output -d 'Form of the result on standard output' -r -f -a "text\t'For people; may change'
json\t'One versioned JSON document'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand man" -l progress -d 'Progress on standard error; json: one event a line' -r -f -a "auto\t'A bar on a terminal, a line every few seconds elsewhere'
always\t'Lines, also on a terminal'
never\t'None'
json\t'One JSON event a line'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand man" -l color -d 'Colours; NO_COLOR is honoured' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand man" -s v -l verbose -d 'More detail; secrets are never shown'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand man" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand help; and not __fish_seen_subcommand_from backup list verify restore member-add member-remove member-update completions man help" -f -a "backup" -d 'Take a backup of etcd and of the static-pod resources in use'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand help; and not __fish_seen_subcommand_from backup list verify restore member-add member-remove member-update completions man help" -f -a "list" -d 'Show every backup in a store'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand help; and not __fish_seen_subcommand_from backup list verify restore member-add member-remove member-update completions man help" -f -a "verify" -d 'Check backups, offline: which layer is broken, and where'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand help; and not __fish_seen_subcommand_from backup list verify restore member-add member-remove member-update completions man help" -f -a "restore" -d 'Make a data directory from a backup, as `etcdutl snapshot restore` does'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand help; and not __fish_seen_subcommand_from backup list verify restore member-add member-remove member-update completions man help" -f -a "member-add" -d 'Add a member: as a learner first, promoted once it has caught up'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand help; and not __fish_seen_subcommand_from backup list verify restore member-add member-remove member-update completions man help" -f -a "member-remove" -d 'Remove a member, if the quorum bears it'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand help; and not __fish_seen_subcommand_from backup list verify restore member-add member-remove member-update completions man help" -f -a "member-update" -d 'Give a member other peer URLs, after its address has changed'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand help; and not __fish_seen_subcommand_from backup list verify restore member-add member-remove member-update completions man help" -f -a "completions" -d 'Print a completion script'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand help; and not __fish_seen_subcommand_from backup list verify restore member-add member-remove member-update completions man help" -f -a "man" -d 'Print a manual page'
complete -c etcd-dr -n "__fish_etcd_dr_using_subcommand help; and not __fish_seen_subcommand_from backup list verify restore member-add member-remove member-update completions man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
