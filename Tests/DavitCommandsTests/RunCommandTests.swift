import Davit
import MachineModel
import Testing
import VMRuntime

@testable import DavitCommands

@Suite struct RunCommandTests {
    private func configuration(_ arguments: String...) throws -> VirtualMachineConfiguration {
        try #require(try DavitCommand.parseAsRoot(["run"] + arguments) as? RunCommand).flags.makeConfiguration()
    }

    @Test func linuxAsUsersOfOtherMonitorsWriteIt() throws {
        let configuration = try configuration(
            "--engine", "soft", "--kernel", "vmlinuz", "--initramfs", "initrd.cpio", "--append", "console=ttyS0", "-m",
            "1024", "-c", "2")
        let linux = try #require(configuration.bootLoader as? LinuxBootLoader)
        #expect(linux.kernel == "vmlinuz")
        #expect(linux.initrd == "initrd.cpio")
        #expect(linux.commandLine == "console=ttyS0")
        #expect(configuration.memorySize == 1 << 30)
        #expect(configuration.cpuCount == 2)
        #expect(configuration.engine == ComponentChoice("soft"))
        #expect(configuration.resetAction == .restart)
    }

    @Test func commandLineMayBeginWithADash() throws {
        let linux = try configuration("--kernel", "k", "--cmdline", "--verbose -- init=/bin/sh").bootLoader
        #expect((linux as? LinuxBootLoader)?.commandLine == "--verbose -- init=/bin/sh")
    }

    @Test func withoutAKernelTheDiskIsBooted() throws {
        let loader = try configuration("--disk", "debian.qcow2", "--cmdline", "quiet").bootLoader
        #expect((loader as? DiskBootLoader)?.commandLine == "quiet")
    }

    @Test func multibootModulesKeepTheirOrderAndArguments() throws {
        let loader = try configuration("--kernel", "k", "--module", "a x=1 y", "--module", "b").bootLoader
        let multiboot = try #require(loader as? MultibootLoader)
        #expect(multiboot.modules == [.init(path: "a", arguments: "x=1 y"), .init(path: "b")])
    }

    @Test func devicesSerialPortsAndTraces() throws {
        let configuration = try configuration(
            "--kernel", "k", "--device", "debug-exit,port=0x501", "--serial", "none", "--serial", "file,path=log",
            "--trace", "io,exceptions", "--no-reboot", "--stats")
        #expect(configuration.devices == [ComponentChoice("debug-exit", settings: ["port": "0x501"])])
        #expect(
            configuration.serialPorts.map(\.attachment.choice) == [
                ComponentChoice("none"), ComponentChoice("file", settings: ["path": "log"]),
            ])
        #expect(configuration.trace == [.io, .exceptions])
        #expect(configuration.resetAction == .end)
        #expect(configuration.printsStatistics)
    }

    @Test func debugExitStatusIsOddAndFitsAByte() {
        #expect(ExitStatus.status(of: .debugExit(code: 0)).status == 1)
        #expect(ExitStatus.status(of: .debugExit(code: 0x10)).status == 0x21)
        #expect(ExitStatus.status(of: .debugExit(code: .max)).status == 0xFF)
    }

    @Test func everyKindOfErrorHasAStatusOfItsOwn() {
        let statuses = MachineError.Kind.allCases.map { ExitStatus.status(of: MachineError($0, "")) }
        #expect(Set(statuses).count == statuses.count)
        #expect(!statuses.contains(0))
    }
}
