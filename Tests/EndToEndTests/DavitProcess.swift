import Glibc

/// The release build of `davit`, run as a user runs it, with its streams in the test's hands.
final class DavitProcess {
    /// `make build` puts it there; tests run in the package's top folder.
    static let path = ".build/release/davit"

    /// `make test` builds it first; a bare `swift test` skips what needs it.
    static var isBuilt: Bool { access(path, X_OK) == 0 }

    /// `POSIX_SPAWN_SETSID`, which glibc declares for GNU programs only.
    private static let newSession: Int16 = 0x80
    private static let signalMask = Int16(POSIX_SPAWN_SETSIGMASK)

    private let process: pid_t
    private var input: Int32
    private var output: Int32
    /// Everything written so far, to standard output and standard error.
    private(set) var text = ""

    enum Streams {
        /// Standard input is a pipe that stays open, standard output and error are one pipe.
        case pipes
        /// All three are a pseudo-terminal, of which davit is the foreground job.
        case terminal(PseudoTerminal)
    }

    /// `addressSpace`: at most so many KiB of it, as `ulimit -v` sets it. `through`: a program that ends in running what stands behind its own
    /// arguments, such as env.
    init(
        _ arguments: [String], streams: Streams = .pipes, addressSpace: Int? = nil, through: [String] = [],
        program: String = path
    ) {
        var childInput: Int32 = -1
        var childOutput: Int32 = -1
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        // Tests run on threads that hold signals back, and children inherit that.
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setflags(&attributes, Self.signalMask)
        switch streams {
        case .pipes:
            var ends: [Int32] = [-1, -1]
            Self.makePipe(&ends)
            (childInput, input) = (ends[0], ends[1])
            Self.makePipe(&ends)
            (output, childOutput) = (ends[0], ends[1])
            posix_spawn_file_actions_adddup2(&actions, childInput, 0)
            posix_spawn_file_actions_adddup2(&actions, childOutput, 1)
            posix_spawn_file_actions_adddup2(&actions, childOutput, 2)
        case .terminal(let terminal):
            (input, output) = (terminal.controller, terminal.controller)
            // A session leader that opens a terminal gets it as its controlling terminal.
            posix_spawnattr_setflags(&attributes, Self.signalMask | Self.newSession)
            posix_spawn_file_actions_addopen(&actions, 0, terminal.name, O_RDWR, 0)
            posix_spawn_file_actions_adddup2(&actions, 0, 1)
            posix_spawn_file_actions_adddup2(&actions, 0, 2)
        }
        var process: pid_t = 0
        var command = through + [program] + arguments
        if let addressSpace { command = ["/bin/sh", "-c", "ulimit -v \(addressSpace); exec \"$@\"", "sh"] + command }
        var words: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
        let failure = posix_spawnp(&process, command[0], &actions, &attributes, &words, environ)
        words.forEach { free($0) }
        precondition(
            failure == 0, "\(Self.path) does not start (\(String(cString: strerror(failure)))); run make build")
        self.process = process
        if childInput >= 0 { close(childInput) }
        if childOutput >= 0 { close(childOutput) }
        if case .pipes = streams { ownsDescriptors = true } else { ownsDescriptors = false }
    }

    private let ownsDescriptors: Bool
    private var status: Int32?

    deinit {
        if status == nil {
            kill(process, SIGKILL)
            waitpid(process, nil, 0)
        }
        if ownsDescriptors {
            if input >= 0 { close(input) }
            if output >= 0 { close(output) }
        }
    }

    /// A pipe that other children do not inherit.
    private static func makePipe(_ ends: inout [Int32]) {
        pipe(&ends)
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    }

    func type(_ text: String) { _ = write(input, text, text.utf8.count) }

    /// The other end sees the end of file.
    func closeInput() {
        close(input)
        input = -1
    }

    /// The other end has nobody to write to any more.
    func closeOutput() {
        close(output)
        output = -1
    }

    /// The process's number.
    var number: Int32 { process }

    func signal(_ number: Int32) { kill(process, number) }

    /// The numbers of its threads, with their names.
    var threads: [(number: pid_t, name: String)] {
        Self.numbers(in: "/proc/\(process)/task").map { number in
            (number, String(Self.contents(of: "/proc/\(process)/task/\(number)/comm").prefix { !$0.isNewline }))
        }
    }

    /// The numbers of processes that it has started and that are still there.
    var children: [pid_t] {
        Self.numbers(in: "/proc").filter { Self.state(of: $0)?.parent == process }
    }

    /// How many files it has open.
    var descriptors: Int { Self.numbers(in: "/proc/\(process)/fd").count }

    /// Memory that is no file's, in KiB (proc(5), RssAnon).
    var ownMemory: Int {
        let line = Self.contents(of: "/proc/\(process)/status").split(separator: "\n").first {
            $0.hasPrefix("RssAnon:")
        }
        return line?.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) } ?? Int.max
    }

    /// True unless the process is gone, or is dead and only waits for its parent to notice.
    static func isThere(_ number: pid_t) -> Bool { state(of: number).map { $0.letter != "Z" } ?? false }

    /// proc(5), /proc/PID/stat.
    private static func state(of number: pid_t) -> (letter: Substring, parent: pid_t)? {
        let text = contents(of: "/proc/\(number)/stat")
        guard let end = text.lastIndex(of: ")") else { return nil }
        let words = text[end...].split(separator: " ")
        return words.count > 2 ? (words[1], pid_t(words[2]) ?? -1) : nil
    }

    private static func numbers(in directory: String) -> [pid_t] {
        guard let stream = opendir(directory) else { return [] }
        defer { closedir(stream) }
        var numbers: [pid_t] = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if let number = pid_t(name) { numbers.append(number) }
        }
        return numbers
    }

    /// Of a small file; empty if it is not there.
    static func contents(of path: String) -> String {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return "" }
        defer { close(file) }
        var text = ""
        var buffer = [UInt8](repeating: 0, count: 65536)
        while case let count = read(file, &buffer, buffer.count), count > 0 {
            text += String(decoding: buffer[..<count], as: UTF8.self)
        }
        return text
    }

    /// Reads output until `wanted` appears in what has come since the last call that found something. False after `seconds`
    /// without it, or when the output ends.
    func waitFor(_ wanted: String, seconds: Int = 60) -> Bool {
        let deadline = time(nil) + seconds
        while true {
            if let range = firstRange(of: wanted) {
                seen = range
                return true
            }
            guard time(nil) < deadline, readMore(milliseconds: 200) != .ended else {
                return firstRange(of: wanted) != nil
            }
        }
    }

    /// Reads the rest and waits for the process; its exit status, or 128 + the number of the signal that killed it. Kills it and
    /// returns -1 after `seconds`.
    func waitForExit(seconds: Int = 60) -> Int32 {
        let deadline = time(nil) + seconds
        var result: Int32 = 0
        while true {
            _ = readMore(milliseconds: 20)
            if waitpid(process, &result, WNOHANG) == process { break }
            if time(nil) >= deadline {
                kill(process, SIGKILL)
                waitpid(process, &result, 0)
                status = -1
                return -1
            }
        }
        while readMore(milliseconds: 0) == .some {}
        status = result & 0x7F == 0 ? result >> 8 & 0xFF : 128 + result & 0x7F
        return status ?? -1
    }

    /// How many bytes of `text` are done with.
    private var seen = 0

    private func firstRange(of wanted: String) -> Int? {
        let bytes = Array(text.utf8)
        let pattern = Array(wanted.utf8)
        guard bytes.count >= seen + pattern.count else { return nil }
        for start in seen...bytes.count - pattern.count
        where bytes[start..<start + pattern.count].elementsEqual(pattern) {
            return start + pattern.count
        }
        return nil
    }

    private enum Reading { case some, none, ended }

    private func readMore(milliseconds: Int32) -> Reading {
        var request = pollfd(fd: output, events: Int16(POLLIN), revents: 0)
        guard output >= 0, poll(&request, 1, milliseconds) > 0 else {
            if output < 0 { usleep(10_000) }
            return .none
        }
        var buffer = [UInt8](repeating: 0, count: 65536)
        let count = read(output, &buffer, buffer.count)
        guard count > 0 else {
            usleep(1000)
            return .ended
        }
        text += String(decoding: buffer[..<count], as: UTF8.self)
        return .some
    }
}

/// A terminal of the test's own.
final class PseudoTerminal {
    let controller: Int32
    let name: String
    /// Kept open, so that the terminal's mode can be looked at when davit is gone.
    private let terminal: Int32

    init() {
        controller = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)
        var isLocked: Int32 = 0
        var number: UInt32 = 0
        // tty_ioctl(4): TIOCSPTLCK and TIOCGPTN.
        _ = ioctl(controller, 0x4004_5431, &isLocked)
        _ = ioctl(controller, 0x8004_5430, &number)
        name = "/dev/pts/\(number)"
        terminal = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC)
    }

    deinit {
        if !isHungUp { close(controller) }
        close(terminal)
    }

    private var isHungUp = false

    func setSize(rows: UInt16, columns: UInt16) {
        var size = winsize(ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0)
        _ = ioctl(controller, UInt(TIOCSWINSZ), &size)
    }

    /// As if its window were closed.
    func hangUp() {
        isHungUp = true
        close(controller)
    }

    /// True if keys come line by line, with echo: how a shell's user wants it.
    var isCooked: Bool {
        var mode = termios()
        tcgetattr(terminal, &mode)
        return mode.c_lflag & tcflag_t(ICANON | ECHO | ISIG) == tcflag_t(ICANON | ECHO | ISIG)
            && mode.c_oflag & tcflag_t(OPOST) != 0
    }
}
