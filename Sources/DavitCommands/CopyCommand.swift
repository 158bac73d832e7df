import ArgumentParser
import Glibc
import HostLinux
import MachineStore

/// `davit cp`: tar on one side, tar on the other.
struct CopyCommand: ParsableCommand, CommandWithStatus {
    static let configuration = CommandConfiguration(
        commandName: "cp", abstract: "Copies a file or directory into a guest that runs, or out of it.",
        discussion: """
            A directory that is there already takes the copy in; else the copy gets the destination's name. Relative paths in the guest are
            meant from root's home. Who copies owns the copy.
            """, aliases: ["copy"])

    @Argument(help: ArgumentHelp("What is copied.", valueName: "[machine:]from"), completion: .file())
    var from: String
    @Argument(help: ArgumentHelp("Where to.", valueName: "[machine:]to"), completion: .file())
    var to: String

    private struct Place {
        /// nil for this host.
        let machine: String?
        let path: String

        /// As with scp, what has a slash before its colon is a path of the host's.
        init(_ text: String) {
            let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.count == 2, !parts[0].isEmpty, !parts[0].contains("/") {
                machine = String(parts[0])
                path = parts[1].isEmpty ? "." : String(parts[1])
            } else {
                machine = nil
                path = text
            }
        }
    }

    /// $1 is the directory, $2 what is in it.
    private static let sender = #"cd -- "$1" && exec tar -cf - -- "$2""#

    /// $1 is where the copy goes, $2 what it is called in the archive. Nothing is believed of an archive: it is unpacked in a new directory,
    /// where nobody else can look in, and only what was asked for leaves that, if it is made of files, directories and links alone.
    private static let receiver = #"""
        set -e
        to="$1" name="$2"
        if [ -d "$to" ]; then
            parent="$to"
            to="$to/$name"
        else
            parent="$(dirname -- "$to")"
            [ "$to" = "${to%/}" ] && [ -d "$parent" ] ||
                { echo "davit: there is no directory '${to%/}' to copy into" >&2; cat >/dev/null; exit 1; }
        fi
        new="$(mktemp -d -- "$parent/.davit-cp-XXXXXX")"
        trap 'rm -rf -- "$new"' EXIT
        trap 'exit 130' INT TERM HUP
        tar -xf - -C "$new" --no-same-owner --no-same-permissions
        [ -e "$new/$name" ] || [ -L "$new/$name" ] || exit 1
        [ -z "$(find "$new" ! -type f ! -type d ! -type l -print)" ] ||
            { echo "davit: '$name' holds devices, sockets or pipes, which are not copied" >&2; exit 1; }
        if [ -d "$new/$name" ] && [ ! -L "$new/$name" ] && [ -d "$to" ]; then
            cp -RPT --preserve=mode,timestamps --remove-destination -- "$new/$name" "$to"
        else
            mv -fT -- "$new/$name" "$to"
        fi
        """#

    func status() throws -> Int32 {
        let (from, to) = (Place(from), Place(to))
        guard let name = from.machine ?? to.machine, from.machine == nil || to.machine == nil else {
            throw ValidationError(
                "one of the two is to be in a guest, the other here: write MACHINE:PATH for the first")
        }
        guard !from.path.isEmpty, !to.path.isEmpty else {
            throw ValidationError("a path is empty; '.' is this directory")
        }
        let guest = Guest(machine: try StoredMachines.find(name))
        let (directory, last) = Self.split(from.path)
        let send = ["sh", "-c", Self.sender, "sh", directory, last]
        let receive = ["sh", "-c", Self.receiver, "sh", to.path, last]
        let signals = try TerminationSignals()
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw StoreError("no pipe (\(String(cString: strerror(errno))))") }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        var statuses: [Int32] = []
        var process: pid_t = 0
        if from.machine == nil {
            defer { close(ends[0]) }
            statuses.append(
                try guest.run(receive, input: ends[0], output: STDERR_FILENO, signals: signals) {
                    process = try HostProgram.start(send, input: nil, output: ends[1])
                    close(ends[1])
                })
            kill(process, SIGPIPE)
        } else {
            statuses.append(
                try guest.run(send, input: nil, output: ends[1], signals: signals) {
                    process = try HostProgram.start(receive, input: ends[0], output: STDERR_FILENO)
                    close(ends[0])
                })
            close(ends[1])
        }
        statuses.append(ChildProcess.waitForEnd(of: process))
        guard let failure = statuses.first(where: { $0 != 0 }) else { return 0 }
        DavitCommand.complain("'\(self.from)' was not copied to '\(self.to)'")
        return failure == ExitStatus.noCommand ? failure : ExitStatus.noSuchState
    }

    /// The directory that a path is in, and its last part.
    private static func split(_ path: String) -> (String, String) {
        var text = path[...]
        while text.count > 1, text.last == "/" { text.removeLast() }
        guard let slash = text.lastIndex(of: "/") else { return (".", String(text)) }
        let last = text[text.index(after: slash)...]
        return (slash == text.startIndex ? "/" : String(text[..<slash]), last.isEmpty ? "." : String(last))
    }
}
