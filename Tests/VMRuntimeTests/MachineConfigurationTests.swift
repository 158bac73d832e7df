import Testing

@testable import VMRuntime

@Suite struct MachineConfigurationTests {
    private func objection(_ change: (inout MachineConfiguration) -> Void) -> String? {
        var configuration = MachineConfiguration(kernel: "vmlinuz")
        change(&configuration)
        do throws(MachineError) {
            try configuration.validate()
            return nil
        } catch {
            return error.kind == .configuration ? error.description : "wrong kind: \(error)"
        }
    }

    @Test func defaultsAreGood() {
        #expect(objection { _ in } == nil)
    }

    @Test(
        arguments: [
            (0, "--memory 0 bytes is too little; give 4 MiB or more, for instance 512M"),
            (1 << 20, "--memory 1 MiB is too little; give 4 MiB or more, for instance 512M"),
            (
                (8 << 20) + 1,
                "--memory 8388609 bytes is not whole pages; give a multiple of 4 KiB, for instance 512M"
            ),
        ] as [(UInt64, String)])
    func memoryOutOfRange(bytes: UInt64, message: String) {
        #expect(objection { $0.memorySize = bytes } == message)
    }

    @Test func memoryBeyondTheHosts() throws {
        let message = try #require(objection { $0.memorySize = 1 << 45 })
        #expect(message.hasPrefix("--memory 32 TiB is more than this host has; give at most "))
    }

    @Test(arguments: [0, -1, 65, 1000])
    func cpusOutOfRange(count: Int) {
        #expect(objection { $0.cpuCount = count } == "--cpus \(count) is out of range; give 1 to 64")
    }

    @Test func unknownNames() {
        #expect(
            objection { $0.engine = ComponentChoice("quantum") }
                == "--engine 'quantum' is not known; choose from: auto, kvm, soft")
        #expect(objection { $0.devices = [ComponentChoice("toaster")] }?.hasPrefix("--device 'toaster' is not") == true)
        #expect(
            objection { $0.serialPorts = [ComponentChoice("modem")] }
                == "--serial 'modem' is not known; choose from: stdio, file, socket, none")
    }

    @Test func settingsOfParts() {
        #expect(
            objection { $0.devices = [ComponentChoice("debug-exit", settings: ["port": "0x10000"])] }
                == "--device debug-exit: port='0x10000' cannot be; give a number from 0 to 0xfffc")
        #expect(
            objection { $0.devices = [ComponentChoice("debug-exit", settings: ["colour": "red"])] }
                == "--device debug-exit has no setting 'colour'; choose from: port")
        #expect(
            objection { $0.serialPorts = [ComponentChoice("file")] }
                == "--serial file does not say where to write; write file,path=...")
    }

    @Test func clashes() {
        let clash = objection {
            $0.initrd = "initrd"
            $0.modules = [.init(path: "module")]
        }
        #expect(clash?.hasPrefix("--initrd and --module 'module' clash") == true)
        #expect(
            objection { $0.serialPorts = [ComponentChoice("stdio"), ComponentChoice("stdio")] }
                == "--serial stdio is given twice; standard input and output serve one port")
        #expect(
            objection { $0.serialPorts = Array(repeating: ComponentChoice("none"), count: 5) }
                == "--serial is given 5 times; a PC has 4 serial ports at most")
    }

    @Test func choicesAsUsersWriteThem() throws {
        let choice = try ComponentChoice(parsing: "debug-exit,port=0x501", flag: "--device")
        #expect(choice == ComponentChoice("debug-exit", settings: ["port": "0x501"]))
        #expect(choice.description == "debug-exit,port=0x501")
    }

    @Test(arguments: [
        ("", "--device '' names nothing; write NAME or NAME,KEY=VALUE"),
        ("a,b", "--device 'a,b': 'b' is not a setting; write KEY=VALUE"),
        ("a,=1", "--device 'a,=1': '=1' is not a setting; write KEY=VALUE"),
        ("a,b=1,b=2", "--device 'a,b=1,b=2' sets 'b' twice; leave one"),
    ])
    func choicesThatCannotBeRead(text: String, message: String) {
        #expect(throws: MachineError(.configuration, message)) { try ComponentChoice(parsing: text, flag: "--device") }
    }
}
