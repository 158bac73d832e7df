import DavitTesting
import Glibc
import Testing

/// davit.yaml: machines as files describe them.
@Suite(.enabled(if: DavitProcess.isBuilt, "make build"), .timeLimit(.minutes(2))) final class MachineFileTests {
    private let home: TemporaryDirectory
    /// Where the file is.
    private let place: TemporaryDirectory
    /// sti; hlt; jmp: runs until somebody ends it.
    private let idle = HandMadeKernel(code: [0xFB, 0xF4, 0xEB, 0xFD])

    init() throws {
        home = try TemporaryDirectory()
        place = try TemporaryDirectory()
    }

    deinit {
        let left = davit("list", "--quiet").output.split(separator: "\n").map(String.init)
        if !left.isEmpty { _ = davit(["kill"] + left) }
    }

    @discardableResult
    private func davit(_ arguments: String...) -> (status: Int32, output: String) { davit(arguments) }

    private func davit(_ arguments: [String]) -> (status: Int32, output: String) {
        let program = String(cString: realpath(DavitProcess.path, nil))
        let script = #"cd "$1" && shift && exec timeout 60 "$@""#
        let command = ["env", "DAVIT_HOME=" + home.path, "sh", "-c", script, "sh", place.path, program] + arguments
        return (try? Tool.start(command)) ?? (-1, "davit does not start")
    }

    private func write(_ text: String) { _ = try? place.file("davit.yaml", Array(text.utf8)) }

    private var twoMachines: String {
        """
        machines:
          web: &usual
            engine: soft
            memory: 64
            kernel: \(idle.path)
          db:
            <<: *usual
            cmdline: quiet
        """
    }

    @Test func upAndDown() throws {
        write(twoMachines)
        #expect(davit("up", "--check") == (0, ""))
        #expect(davit("up") == (0, "web\ndb\n"))
        #expect(davit("list", "-q") == (0, "db\nweb\n"))
        #expect(davit("inspect", "db").output.contains(#""arguments":["--kernel","\#(idle.path)","--cmdline","quiet""#))
        #expect(davit("up") == (0, "web\ndb\n"))
        #expect(davit("down", "--time", "0", "db") == (0, "db\n"))
        #expect(davit("list", "-q") == (0, "web\n"))
        #expect(davit("down", "--time", "0", "--remove") == (0, "db\nweb\n"))
        #expect(davit("list", "-aq") == (0, ""))
        #expect(davit("down") == (0, ""))
    }

    @Test func whatHasChangedHoldsFromTheNextStart() {
        write(twoMachines)
        #expect(davit("up", "web").status == 0)
        write(twoMachines.replacing("memory: 64", with: "memory: 128"))
        #expect(
            davit("up", "web") == (
                0, "davit: machine 'web' runs as it was before the file changed; stop it first\nweb\n"
            ))
        #expect(davit("down", "--time", "0").status == 0)
        #expect(davit("up", "web") == (0, "web\n"))
        #expect(davit("inspect", "web").output.contains(#""--memory","128""#))
    }

    @Test func othersMachinesAreLeftAlone() {
        #expect(davit("create", "-n", "web", "--kernel", idle.path) == (0, "web\n"))
        write(twoMachines)
        let taken =
            "davit: davit.yaml:2: there is a machine 'web' already, made by 'davit run' or 'davit create'; choose another name\n"
        #expect(davit("up", "web") == (78, taken))
        #expect(davit("down", "--remove") == (78, taken))
        #expect(davit("list", "-aq") == (0, "web\n"))
    }

    @Test(arguments: [
        ("", 1, "the file is empty"),
        ("machines:\n", 1, "below 'machines:' stand names"),
        ("machines: {}\n", 1, "there is no machine below 'machines:'"),
        ("version: 3\nmachines:\n", 1, "'version' is not known here"),
        ("machines:\n  a/b: {}\n", 2, "'a/b' cannot be a machine's name"),
        ("machines:\n  web:\n    kernel: k\n    colour: red\n", 4, "'colour' is not known; choose from: image"),
        ("machines:\n  web:\n    kernel: k\n    kernel: l\n", 4, "'kernel' is here for the second time"),
        ("machines:\n  web:\n    kernel: k\n    memory: lots\n", 4, "memory 'lots' is not a size"),
        ("machines:\n  web:\n    kernel: k\n    cpus: 65\n", 4, "cpus"),
        ("machines:\n  web:\n    kernel: [k]\n", 3, "'kernel' has a single value"),
        ("machines:\n  web:\n    kernel:\n", 3, "'kernel' has no value"),
        ("machines:\n  web:\n    kernel: k\n    stats: perhaps\n", 4, "'stats' is true or false"),
        (
            "machines:\n  web:\n    kernel: k\n    networks: [user]\n    publish:\n    - 80:80\n    - 8080:x\n", 7,
            "8080:x"
        ),
        ("machines:\n  web:\n    kernel: k\n    volumes:\n      - .:/srv\n      - nowhere\n", 6, "nowhere"),
        ("machines:\n  web:\n    kernel: k\n    devices: [debug-exit, toaster]\n", 4, "toaster"),
        ("machines:\n  web:\n    kernel: k\n    restart: often\n", 4, "restart 'often' is not known"),
        ("machines:\n  web:\n    kernel: k\n    env: [A]\n", 4, "'A' in 'env' is no variable"),
        ("machines:\n  web:\n    cpus: 2\n", 2, "kernel is missing"),
        ("machines:\n  web: {image: debian\n", 3, "did not find expected"),
        ("machines:\n\tweb:\n", 2, "cannot start any token"),
    ])
    func mistakesHaveALine(text: String, line: Int, message: String) {
        write(text)
        let (status, output) = davit("up", "--check")
        #expect(status == 78)
        #expect(output.hasPrefix("davit: davit.yaml:\(line): "), "\(output)")
        #expect(output.contains(message) && output.count { $0 == "\n" } == 1, "\(output)")
        #expect(davit("list", "-aq") == (0, ""))
    }

    @Test func aFileThatIsNotThereIsSaidSo() {
        #expect(
            davit("up") == (
                66,
                "davit: 'davit.yaml' cannot be read (No such file or directory); write one, or name another with --file\n"
            ))
        #expect(davit("down", "-f", ".").status == 66)
        write(twoMachines)
        #expect(davit("up", "nosuch") == (1, "davit: 'davit.yaml' has no machine 'nosuch'; it has: web, db\n"))
        write(
            "machines:\n  web: {kernel: nowhere, engine: soft}\n  db: {kernel: \(idle.path), engine: soft, memory: 64}\n"
        )
        let (status, output) = davit("up")
        #expect(status == 78 && output.contains("davit: davit.yaml:2: ") && output.contains("db\n"), "\(output)")
        #expect(davit("list", "-aq") == (0, "db\n"))
    }

    @Test func thePublishedSchemaIsTheProgramsOwn() {
        #expect(davit("up", "--schema") == (0, DavitProcess.contents(of: "docs/davit.schema.json")))
    }
}
