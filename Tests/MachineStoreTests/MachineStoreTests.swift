import DavitTesting
import Glibc
import Testing

@testable import MachineStore

@Suite struct MachineStoreTests {
    private let directory: TemporaryDirectory
    private let store: MachineStore

    init() throws {
        let directory = try TemporaryDirectory()
        self.directory = directory
        store = try MachineStore { $0 == "DAVIT_HOME" ? directory["a/b"] : nil }
    }

    private func configuration(removed: Bool = false) -> StoredConfiguration {
        StoredConfiguration(created: 1, directory: "/", arguments: ["--kernel", "a b"], isRemovedAtEnd: removed)
    }

    private func make(_ name: String?, removed: Bool = false) throws -> MachineDirectory {
        try store.create(name: name, configuration(removed: removed))
    }

    @Test func aMachineIsFoundAsItWasMade() throws {
        #expect(try store.all().isEmpty)
        _ = try make("web")
        let found = try store.find("web")
        #expect(found.configuration == configuration())
        #expect(found.status == .created)
        #expect(try store.all().map(\.name) == ["web"])
    }

    @Test func aNameIsTakenOnce() throws {
        _ = try make("web")
        #expect(throws: StoreError.self) { try make("web") }
        #expect(try store.all().count == 1)
        #expect(try Tool.run(["ls", "-A", directory["a/b/machines"]]) == "web\n")
    }

    @Test(arguments: ["", ".", "..", ".web", "a/b", "-web", "wéb", "a b", "a\n", String(repeating: "a", count: 64)])
    func namesThatCannotBe(name: String) throws {
        #expect(throws: StoreError.self) { try make(name) }
        #expect(throws: StoreError.self) { try store.find(name) }
    }

    @Test func namesAreMadeUp() throws {
        let names = try (0..<20).map { _ in try make(nil).name }
        #expect(Set(names).count == 20)
        #expect(try store.all().map(\.name) == names.sorted())
    }

    @Test func theLockIsWhatTellsThatAMachineRuns() throws {
        let machine = try make("web")
        do {
            let lock = try machine.lock()
            #expect(machine.status == .running)
            #expect(throws: StoreError.self) { try machine.lock() }
            try machine.recordStart(time: 5)
            _ = lock
        }
        // As after SIGKILL: nobody has said how it ended.
        #expect(machine.status == .died)
        let end = EndRecord(status: 80, message: "the guest panicked", time: 7)
        try machine.record(end)
        #expect(machine.status == .ended(end))
        try machine.recordStart(time: 9)
        #expect(machine.status == .died)
        #expect(machine.started == 9)
    }

    @Test func removingLeavesNothing() throws {
        let machine = try make("web")
        try machine.recordStart(time: 5)
        try store.remove(machine, holding: machine.lock())
        #expect(try Tool.run(["ls", "-A", directory["a/b/machines"]]) == "")
        #expect(throws: StoreError.self) { try store.find("web") }
        #expect(throws: StoreError.self) { try machine.lock() }
    }

    @Test func whatBrokenOffCommandsLeftIsSwept() throws {
        let kept = try make("kept")
        try kept.recordStart(time: 5)
        try make("passing", removed: true).recordStart(time: 5)
        // A process number that no process has.
        try Tool.run(["mkdir", directory["a/b/machines/.new-99999999-1"]])
        try store.sweep()
        #expect(try Tool.run(["ls", "-A", directory["a/b/machines"]]) == "kept\n")
    }

    @Test func aConfigurationThatCannotBeReadIsSaidSo() throws {
        _ = try make("web")
        try Tool.run(["cp", "/etc/hostname", directory["a/b/machines/web/config.json"]])
        #expect(throws: StoreError.self) { try store.find("web") }
        #expect(try store.all().isEmpty)
    }
}
