import ACPITables
import BootLoaders
import Chipset
import GuestMemory
import HostLinux
import MachineModel
import Synchronization

extension Machine {
    /// What the loading thread leaves behind.
    private final class Loading: Sendable {
        /// Guards the result; a failure until the thread is done.
        let result = Mutex<Result<LoadedKernel, MachineError>>(
            .failure(MachineError(.host, "the kernel is being loaded")))
    }

    /// Builds the chips and the engine, while another thread writes the firmware's tables and loads the kernel: to start up quickly.
    ///
    /// `cause`: of the reset that it is to wake from, if there was one.
    func makeBoard(engine: ComponentChoice, after cause: ResetCause?) throws(MachineError) -> Board {
        let loading = Loading()
        let loader: HostThread
        do throws(SystemError) {
            loader = try HostThread(name: "davit-loader") { [self] in
                let result: Result<LoadedKernel, MachineError>
                do throws(MachineError) { result = .success(try loadKernel()) } catch { result = .failure(error) }
                loading.result.withLock { $0 = result }
            }
        } catch {
            throw MachineError(.host, "loading the kernel gets no thread: \(error)")
        }
        let board: Board
        do throws(MachineError) {
            board = try Board(
                self, engine: engine, control: BoardControl { [inbox] in inbox.put(.machine($0)) }, after: cause)
        } catch {
            loader.join()
            throw error
        }
        loader.join()
        do {
            let loaded = try loading.result.withLock { $0 }.get()
            for line in loaded.warnings { log.write(.warning, line) }
            for line in loaded.report { log.write(.info, line) }
            try board.engine.vcpus[0].restore(loaded.state)
            return board
        } catch {
            board.detach()
            throw error as? MachineError ?? MachineError(.image, "the kernel cannot be entered: \(error)")
        }
    }

    /// The files that the user has given, or those on the first disk.
    private func bootFiles() throws(MachineError) -> BootFiles {
        if let givenFiles { return givenFiles }
        return try BootFiles(
            disk: disks[0], path: configuration.disks[0].settings["path"] ?? "", configuration, log: log)
    }

    private static let watchdogTable: ACPITable = {
        let base = PlatformLayout.Port.watchdog.lowerBound
        typealias Register = Watchdog.Register
        return WDAT.table(
            WDAT.Registers(
                control: base + Register.control, running: Watchdog.Control.running, resets: Watchdog.Control.resets,
                status: base + Register.status, preset: base + Register.preset, count: base + Register.count,
                reload: base + Register.reload, tick: UInt32(Watchdog.tick), counts: Watchdog.counts))
    }()

    private func loadKernel() throws(MachineError) -> LoadedKernel {
        let files = try bootFiles()
        do {
            let tables = try ACPITableSet(
                ACPIPlatform(
                    processorCount: configuration.cpuCount, serialPorts: Set(configuration.serialPorts.indices),
                    virtioCount: configuration.virtioMMIOCount,
                    tables: configuration.devices.contains { $0.name == Catalog.watchdog } ? [Self.watchdogTable] : []))
            let request = BootRequest(
                kernel: files.kernel, initrd: files.initrd, modules: files.modules, commandLine: files.commandLine,
                rsdp: tables.rsdp)
            let loaded = try BootLoader.load(request, into: memory)
            try tables.write(into: memory)
            return loaded
        } catch let error as BootError {
            throw MachineError(error)
        } catch {
            throw MachineError(.configuration, "\(error)")
        }
    }
}

extension MachineError {
    /// A kernel, initrd or module that cannot be used.
    init(_ error: BootError) {
        let kind: Kind =
            switch error.reason {
            case .unreadable: .file
            case .commandLineTooLong: .configuration
            case .notAKernel, .unsupported, .truncated, .malformed, .doesNotFit: .image
            }
        self.init(kind, error.description)
    }
}
