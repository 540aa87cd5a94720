# Reads the table of capabilities in README.md and prints what table.sh should: SET CELL...
# Variables: version, of the kernel, as in 6.12; paranoid, its perf_event_paranoid.
# A row's first cell names capabilities; with a + in front they are added to those of the row above. A cell
# that names a version of Linux means yes from that version on.
function number(text, parts) {
    split(text, parts, ".")
    return 1000 * parts[1] + parts[2]
}
/^\|.*CAP_|^\| none/ {
    split($0, cells, "|")
    names = tolower(cells[2])
    list = ""
    while (match(names, /`cap_[a-z_]+`/)) {
        list = list (list ? "," : "") substr(names, RSTART + 5, RLENGTH - 6)
        names = substr(names, RSTART + RLENGTH)
    }
    if (cells[2] ~ /^ *\+/) list = set "," list
    set = list
    row = set ? set : "none"
    if (cells[3] ~ /refused/ || (paranoid > 2 && set !~ /sys_admin/)) {
        print row, "refused"
        next
    }
    for (i = 3; i <= 9; i++) {
        cell = cells[i]
        gsub(/^ +| +$/, "", cell)
        if (cell ~ /^Linux /) cell = number(version) >= number(substr(cell, 7)) ? "yes" : "no"
        row = row " " cell
    }
    print row
}
