#!/usr/bin/busybox sh
# Stands where the agent stands and becomes it, with another process beside it that does what a job asks for by a file among
# its outputs: kills the agent, or tells what memory it takes, or runs the job's bundle under crun.
b=/usr/bin/busybox
# With words it is no agent but the program of a self-test, in a job.
[ $# -eq 0 ] || exec /usr/libexec/gapd "$@"
# The job whose wish this is.
job() { $b basename "$($b dirname "$($b dirname "$1")")"; }
(
    while $b sleep 0.5 && $b kill -0 $$; do
        for wish in /var/lib/gap/jobs/*/output/wish; do
            [ -e "$wish" ] || continue
            read -r what more < "$wish"
            $b rm "$wish"
            case $what in
            kill)
                echo "the agent is killed"
                $b kill -9 $$
                exit
                ;;
            status)
                $b cat /proc/$$/status > "${wish%wish}new"
                $b mv "${wish%wish}new" "${wish%wish}told"
                ;;
            crun)
                # The bundle of the job that asks, `more` times: seconds since boot before each, and what it prints.
                $b mkdir -p /run/bundle
                $b sed 's|"cgroupsPath":"[^"]*"|"cgroupsPath":"/crun"|' "/run/gap/jobs/$(job "$wish")/config.json" \
                    > /run/bundle/config.json
                for n in $($b seq "$more"); do
                    read -r up rest < /proc/uptime
                    echo "$up $(crun --root /run/crun run --bundle /run/bundle "again$n" 2>&1 | $b head -n 1)"
                done > "${wish%wish}new"
                $b mv "${wish%wish}new" "${wish%wish}told"
                ;;
            esac
        done
    done
) &
exec /usr/libexec/gapd
