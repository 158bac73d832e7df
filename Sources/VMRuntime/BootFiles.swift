import BootLoaders
import DiskContents
import GuestMemory
import MachineModel

/// What a machine boots.
struct BootFiles: Sendable {
    let kernel: KernelFile
    let initrd: KernelFile?
    let modules: [BootModule]
    let commandLine: String

    /// Files that the user has named.
    init(kernel path: String, _ configuration: MachineConfiguration, log: Log) throws(BootError) {
        kernel = try KernelFile(path: path, flag: "--kernel")
        initrd = try Self.openInitrd(configuration, kernel: kernel, log: log)
        modules = try configuration.modules.map { module throws(BootError) in
            BootModule(file: try KernelFile(path: module.path, flag: "--module"), arguments: module.arguments)
        }
        commandLine = ([configuration.commandLine] + configuration.sharedFolders.compactMap(\.commandLineWord))
            .filter { !$0.isEmpty }.joined(separator: " ")
    }

    /// What lies on the first disk, as it is now: a guest that has put a new kernel there finds it at its next start.
    init(disk: MachineDisk, path: String, _ configuration: MachineConfiguration, log: Log) throws(MachineError) {
        let found: BootableDisk
        do throws(DiskContentsError) {
            found = try BootableDisk(disk.device, device: "/dev/vda", initrdLimit: configuration.memorySize)
        } catch {
            throw MachineError(.image, "--disk \(path): nothing to boot: \(error): give a kernel with --kernel")
        }
        kernel = KernelFile(bytes: found.kernel, name: found.place, flag: "--disk")
        if let bytes = found.initrd {
            initrd = KernelFile(bytes: bytes, name: "initrd of \(found.place)", flag: "--disk")
        } else {
            initrd = try Self.makeInitrd(for: kernel, of: found, path: path)
        }
        modules = []
        // Later words win: those of the user are the last.
        var words = [found.commandLine, configuration.commandLine]
        if !words.contains(where: { $0.contains("console=") }) { words.insert("console=ttyS0", at: 1) }
        words += configuration.sharedFolders.compactMap(\.commandLineWord)
        commandLine = words.filter { !$0.isEmpty }.joined(separator: " ")
        log.write(.info, "booting \(found.place) with '\(commandLine)'")
    }

    /// An initrd that reaches the disk, for a kernel that has none beside it and whose modules lie on the same disk.
    private static func makeInitrd(
        for kernel: KernelFile, of disk: BootableDisk, path: String
    ) throws(MachineError) -> KernelFile? {
        let maker: InitramfsMaker?
        do throws(DiskContentsError) {
            maker = try InitramfsMaker(kernel: kernel) { path throws(DiskContentsError) in try disk.rootFile(path) }
        } catch {
            throw MachineError(
                .image,
                "--disk \(path): the modules of its kernel cannot be read: \(error): give an initrd with --kernel and --initrd"
            )
        }
        do throws(BootError) { return try maker?.make() } catch { throw MachineError(error) }
    }

    /// The initrd that was given; else, for a machine with disks, one that reaches them, if its kernel's modules are to be found.
    private static func openInitrd(
        _ configuration: MachineConfiguration, kernel: KernelFile, log: Log
    ) throws(BootError) -> KernelFile? {
        if let path = configuration.initrd { return try KernelFile(path: path, flag: "--initrd") }
        guard !configuration.disks.isEmpty, configuration.modules.isEmpty,
            let maker = InitramfsMaker(kernel: kernel), let made = try maker.make()
        else { return nil }
        log.write(.info, "an initramfs with the disk drivers of \(maker.release) was made")
        return made
    }
}
