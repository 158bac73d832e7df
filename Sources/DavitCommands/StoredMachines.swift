import BlockFormats
import Davit
import Glibc
import MachineStore

/// The user's machines.
enum StoredMachines {
    static func find(_ name: String) throws -> MachineDirectory { try MachineStore().find(name) }

    /// Keeps a machine; what is wrong with its flags is said before. Its disk lies over `image`, if that is not nil. `file` is the davit.yaml
    /// that describes it.
    static func create(
        name: String?, _ flags: MachineFlags, image: StoredImage?, cloudInit: String?, keeping: KeepingFlags,
        environment: [String], file: String? = nil
    ) throws -> MachineDirectory {
        _ = try flags.makeLog()
        try flags.makeConfiguration(rootDisk: image?.disk).validate()
        guard let place = getcwd(nil, 0) else { throw StoreError("the working directory is gone; change to another") }
        let directory = String(cString: place)
        free(place)
        var configuration = StoredConfiguration(
            created: Int64(time(nil)), directory: directory, arguments: flags.arguments,
            isRemovedAtEnd: keeping.isRemovedAtEnd, image: image?.id)
        configuration.file = file
        configuration.environment = environment
        configuration.restart = try keeping.policy()
        let seed = try cloudInit.map { try SeedDisk(userData: $0, hostname: name) }
        return try MachineStore().create(name: name, configuration) { fresh in
            try seed?.write(in: fresh)
            guard let image else { return }
            try DiskCommand.perform { () throws(DiskError) in
                var options = Qcow2Options()
                options.backing = (image.disk, .qcow2)
                let size = try DiskFile.information(image.disk, format: .qcow2).size
                try DiskFile.create(fresh + "/" + MachineDirectory.diskFile, format: .qcow2, size: size, options)
            }
        }
    }

    /// The image of that name; one that can be pulled is, if it is not there.
    static func image(_ text: String?) throws -> StoredImage? {
        guard let text else { return nil }
        let store = try ImageCommand.store()
        do throws(StoreError) {
            return try store.find(text)
        } catch {
            guard let suite = DebianImage.suite(of: text) else { throw error }
            DavitCommand.complain("there is no image '\(text)' yet; pulling it")
            return try DebianImage.pull(suite, into: store)
        }
    }

    static func remove(_ machine: MachineDirectory) throws {
        try MachineStore().remove(machine, holding: machine.lock())
    }

    /// The control socket of a machine that runs. A process that is just beginning is given a moment.
    static func control(_ machine: MachineDirectory, for verb: String) throws -> ControlClient {
        for _ in 0..<50 {
            guard case .running = machine.status else {
                throw StoreError("machine '\(machine.name)' is not running, so there is nothing to \(verb)")
            }
            if let control = ControlClient(machine) { return control }
            usleep(20_000)
        }
        throw StoreError("machine '\(machine.name)' does not answer; 'davit kill \(machine.name)' ends it")
    }

    /// Carries out the same for several machines: all are tried, each failure gets its line.
    static func each(_ names: [String], _ body: (MachineDirectory) throws -> Void) throws {
        var failures: [String] = []
        for name in names {
            do { try body(find(name)) } catch { failures.append("\(error)") }
        }
        if let last = failures.popLast() {
            for line in failures { DavitCommand.complain(line) }
            throw StoreError(last)
        }
    }
}
