# Downloads from Debian's archive with the project's own apt configuration: nothing
# is installed, and the system's apt configuration does not matter. The scripts that
# fetch source this file; they define say().
#
#   ETCD_DR_APT_MIRROR  the Debian archive to use if the machine's own apt
#                       sources name none
# shellcheck shell=bash

# Prints "uri<TAB>keyring" lines of every source that serves a release of
# Debian itself, in both forms apt knows (sources.list(5)).
debian_sources() {
    local etc=/etc/apt
    # Suites of other vendors ("nodistro", "cloud-sdk-bookworm") and the
    # security and updates archives do not carry the other releases.
    local releases='^(oldoldstable|oldstable|stable|testing|unstable|sid|buster|bullseye|bookworm|trixie|forky|duke)$'
    local file
    for file in "$etc"/sources.list.d/*.sources; do
        [ -r "$file" ] || continue
        awk -v releases="$releases" '
            function flush(   i, n, u, s, key) {
                if (enabled && types ~ /(^| )deb( |$)/ && components ~ /(^| )main( |$)/) {
                    n = split(suites, s, " ")
                    for (i = 1; i <= n; i++) if (s[i] ~ releases) {
                        split(uris, u, " ")
                        key = signed ~ /^\// ? signed : ""
                        print u[1] "\t" key
                        break
                    }
                }
                types = uris = suites = components = signed = field = ""; enabled = 1
            }
            BEGIN { enabled = 1 }
            /^#/ { next }
            /^[ \t]*$/ { flush(); next }
            /^[ \t]/ { value = $0 }
            /^[^ \t]/ { colon = index($0, ":"); field = tolower(substr($0, 1, colon - 1)); value = substr($0, colon + 1) }
            {
                gsub(/^[ \t]+|[ \t]+$/, "", value); gsub(/[ \t]+/, " ", value)
                if (field == "types") types = types " " value
                else if (field == "uris") uris = uris (uris == "" ? "" : " ") value
                else if (field == "suites") suites = suites " " value
                else if (field == "components") components = components " " value
                else if (field == "signed-by") signed = signed value
                else if (field == "enabled" && tolower(value) ~ /^(no|false|0)$/) enabled = 0
            }
            END { flush() }' "$file"
    done
    for file in "$etc"/sources.list "$etc"/sources.list.d/*.list; do
        [ -r "$file" ] || continue
        awk -v releases="$releases" '
            $1 != "deb" { next }
            {
                line = $0; sub(/#.*/, "", line); sub(/^[ \t]*deb[ \t]+/, "", line)
                key = ""
                if (line ~ /^\[/) {
                    options = substr(line, 2, index(line, "]") - 2)
                    sub(/^\[[^]]*\][ \t]*/, "", line)
                    if (match(options, /signed-by=[^ \t]+/)) key = substr(options, RSTART + 10, RLENGTH - 10)
                }
                n = split(line, part, /[ \t]+/)
                if (part[2] !~ releases) next
                for (i = 3; i <= n; i++) if (part[i] == "main") { print part[1] "\t" key; next }
            }' "$file"
    done
}

find_mirror() {
    local found
    if [ -n "${ETCD_DR_APT_MIRROR:-}" ]; then
        mirror=$ETCD_DR_APT_MIRROR keyring=
    else
        found=$(debian_sources | head -n 1)
        mirror=${found%%$'\t'*} keyring=${found#*$'\t'}
    fi
    local debian=/usr/share/keyrings/debian-archive-keyring.gpg
    if [ -z "$keyring" ] && [ -r "$debian" ]; then keyring=$debian; fi
    [ -n "$mirror" ]
}

# Runs apt with its own state, cache, sources and hooks; of the system's settings
# it keeps only how to reach the network (apt.conf(5): APT_CONFIG is read first).
# After suite and folder come the kinds of source: deb, deb-src.
private_apt() {
    local suite=$1 home=$2 kind
    mkdir -p "$home"/etc/{sources.list.d,preferences.d} "$home"/state/lists/partial "$home"/cache/archives/partial
    : > "$home/status"
    for kind in "${@:3}"; do
        printf '%s [%s] %s %s main\n' "$kind" \
            "${keyring:+signed-by=$keyring}${keyring:+ }arch=$(dpkg --print-architecture)" "$mirror" "$suite"
    done > "$home/etc/sources.list"
    {
        apt-config dump | grep -E '^Acquire::(http|https|Retries|ForceIPv4|ForceIPv6)(::| )' || true
        cat <<CONF
Dir::State "$home/state";
Dir::State::status "$home/status";
Dir::Cache "$home/cache";
Dir::Etc "$home/etc";
Dir::Etc::parts "/dev/null";
Dir::Etc::main "/dev/null";
Dir::Etc::netrc "/etc/apt/auth.conf";
Dir::Etc::netrcparts "/etc/apt/auth.conf.d";
Dir::Etc::trusted "/etc/apt/trusted.gpg";
Dir::Etc::trustedparts "/etc/apt/trusted.gpg.d";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "60";
APT::Get::List-Cleanup "false";
APT::Sandbox::User "";
CONF
    } > "$home/apt.conf"
}

# The lists of a frozen or lagging mirror expire. Their signature is still checked;
# only their age is ignored, with a message.
update_lists() {
    local suite=$1 home=$2
    if ! APT_CONFIG="$home/apt.conf" apt-get update -qq --error-on=any 2> "$home/update.log"; then
        if ! grep -q 'is expired' "$home/update.log"; then
            cat "$home/update.log" >&2
            return 1
        fi
        say "  this mirror's lists of $suite are past their date; using them as they are"
        printf 'Acquire::Check-Valid-Until "false";\n' >> "$home/apt.conf"
        APT_CONFIG="$home/apt.conf" apt-get update -qq --error-on=any >&2
    fi
}

# The lists are refreshed only when the first try fails.
download() {
    local into=$1
    shift
    (cd "$into" && apt-get download -qq "$@" >/dev/null 2>&1) ||
        { apt-get update -qq >&2 && (cd "$into" && apt-get download -qq "$@" >&2); }
}
