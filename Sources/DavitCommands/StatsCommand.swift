import ArgumentParser
import Glibc
import MachineStore
import VMRuntime

struct StatsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stats", abstract: "Tells what machines that run take of this host.")

    @Flag(name: [.short, .long], help: "Goes on, every second.")
    var watch = false
    @Option(help: "table or json.")
    var format = OutputFormat.table
    @Argument(help: "The machines. (default: all that run)", completion: .machines)
    var names: [String] = []

    private struct Sample {
        /// The processor's time, in clock ticks (sysconf(3), _SC_CLK_TCK).
        let ticks: Int64
        /// In bytes.
        let memory: Int64
        let threads: Int64
    }

    func run() throws {
        let tick = Double(max(sysconf(Int32(_SC_CLK_TCK)), 1))
        repeat {
            let machines = try names.isEmpty ? MachineStore().all() : names.map(StoredMachines.find)
            let running = machines.compactMap { machine in
                ControlClient(machine)?.process.flatMap { process in
                    Self.sample(process).map { (machine: machine, process: process, before: $0) }
                }
            }
            for name in names where !running.contains(where: { $0.machine.name == name }) {
                throw StoreError("machine '\(name)' is not running; 'davit start \(name)' starts it")
            }
            let began = Self.now()
            sleep(1)
            var rows: [[String]] = []
            var objects: [JSON] = []
            for (machine, process, before) in running {
                guard let after = Self.sample(process) else { continue }
                let percent = Double(after.ticks - before.ticks) / tick / max(Self.now() - began, 0.001) * 100
                let tenths = Int64((percent * 10).rounded())
                let disk = Self.disk(machine)
                rows.append([
                    machine.name, "\(tenths / 10).\(tenths % 10) %", "\(after.memory >> 20) MiB", "\(disk >> 20) MiB",
                    "\(after.threads)", "\(process)",
                ])
                objects.append(
                    JSON([
                        "name": .string(machine.name), "cpuPerMille": .number(tenths),
                        "memory": .number(after.memory), "disk": .number(disk), "threads": .number(after.threads),
                        "pid": .number(Int64(process)),
                    ]))
            }
            if format == .json {
                print(JSON.array(objects))
            } else {
                print(ListCommand.table([["NAME", "CPU", "MEMORY", "DISK", "THREADS", "PID"]] + rows))
            }
            fflush(nil)
        } while watch
    }

    private static func now() -> Double {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return Double(now.tv_sec) + Double(now.tv_nsec) / 1e9
    }

    /// proc_pid_stat(5): fields 14 and 15 are user and system time, 20 the threads, 24 the resident pages. The name before them may hold
    /// anything.
    private static func sample(_ process: pid_t) -> Sample? {
        let file = open("/proc/\(process)/stat", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = read(file, &bytes, bytes.count)
        guard count > 0, let end = bytes[..<count].lastIndex(of: UInt8(ascii: ")")) else { return nil }
        let fields = String(decoding: bytes[(end + 1)..<count], as: UTF8.self).split(separator: " ")
        // The first of them is field 3.
        guard fields.count > 21, let user = Int64(fields[11]), let system = Int64(fields[12]),
            let threads = Int64(fields[17]), let pages = Int64(fields[21])
        else { return nil }
        return Sample(ticks: user + system, memory: pages * Int64(sysconf(Int32(_SC_PAGESIZE))), threads: threads)
    }

    /// What the machine's own disk takes.
    private static func disk(_ machine: MachineDirectory) -> Int64 {
        var status = stat()
        return stat(machine.path + "/" + MachineDirectory.diskFile, &status) == 0 ? Int64(status.st_blocks) * 512 : 0
    }
}
