import Glibc
import Testing

/// How a machine ends, with guests of a few instructions, on every engine that this host has.
@Suite(.enabled(if: DavitProcess.isBuilt, "make build"), .timeLimit(.minutes(1))) struct HandMadeKernelTests {
    private func run(_ engine: String, _ code: [UInt8], _ more: String...) -> (status: Int32, text: String) {
        let kernel = HandMadeKernel(code: code)
        let davit = DavitProcess(["run", "--engine", engine, "--kernel", kernel.path, "--memory", "16"] + more)
        return (davit.waitForExit(seconds: 30), davit.text)
    }

    /// mov al, 0x10; out 0xf4, al; hlt
    private let debugExit: [UInt8] = [0xB0, 0x10, 0xE6, 0xF4, 0xF4]

    @Test(arguments: TestEngine.all) func debugExitSetsTheStatus(engine: String) {
        let (status, text) = run(engine, debugExit, "--device", "debug-exit")
        #expect(status == 0x21)
        #expect(text == "")
    }

    @Test(arguments: TestEngine.all) func debugExitAtAnotherPort(engine: String) {
        // mov dx, 0x501; mov eax, 3; out dx, eax; hlt
        let (status, _) = run(
            engine, [0x66, 0xBA, 0x01, 0x05, 0xB8, 3, 0, 0, 0, 0xEF, 0xF4], "--device", "debug-exit,port=0x501")
        #expect(status == 7)
    }

    @Test(arguments: TestEngine.all) func serialPortWritesToStandardOutput(engine: String) {
        // mov dx, 0x3f8; mov al, 'H'; out dx, al; mov al, 'i'; out dx, al; then as above
        let (status, text) = run(
            engine, [0x66, 0xBA, 0xF8, 0x03, 0xB0, 0x48, 0xEE, 0xB0, 0x69, 0xEE] + debugExit, "--device", "debug-exit")
        #expect(status == 0x21)
        #expect(text == "Hi")
    }

    @Test(arguments: TestEngine.all) func haltWithInterruptsOffIsReported(engine: String) {
        // cli; hlt
        let (status, text) = run(engine, [0xFA, 0xF4])
        #expect(status == 82)
        #expect(text.hasPrefix("davit: the guest halted with interrupts off, and nothing can wake it\n"))
    }

    /// A guest that does nothing but reset: what a machine was before is gone, and takes no memory or descriptor any more.
    @Test(arguments: TestEngine.all) func resetsLeaveNothingBehind(engine: String) {
        // mov dx, 0xcf9; mov al, 6; out dx, al; hlt
        let kernel = HandMadeKernel(code: [0x66, 0xBA, 0xF9, 0x0C, 0xB0, 0x06, 0xEE, 0xF4, 0xEB, 0xFD])
        let davit = DavitProcess([
            "run", "--engine", engine, "--kernel", kernel.path, "--memory", "16", "--device", "entropy", "--device",
            "balloon", "--device", "watchdog", "--console", "none", "--log", "info",
        ])
        var resets = 0
        for _ in 0..<200 where davit.waitFor("starting over\n", seconds: 20) { resets += 1 }
        #expect(resets == 200)
        #expect(davit.descriptors < 64)
        #expect(davit.ownMemory < 64 << 10, "KiB")
        davit.signal(SIGTERM)
        #expect(davit.waitForExit(seconds: 20) == 128 + SIGTERM)
    }

    @Test(arguments: TestEngine.all) func tripleFaultIsReportedWithRegisters(engine: String) {
        // lidt of six zero bytes; ud2
        let (status, text) = run(engine, [0x0F, 0x01, 0x1D, 0x29, 0, 0x10, 0, 0x0F, 0x0B, 0, 0, 0, 0, 0, 0])
        #expect(status == 81)
        #expect(text.hasPrefix("davit: the guest triple-faulted\n"))
        #expect(text.lowercased().contains("rip"))
    }

    @Test(arguments: TestEngine.all) func jumpIntoNowhereIsATripleFault(engine: String) {
        // mov eax, 0xb0000000; jmp eax: no RAM is there, and there is no interrupt table
        let (status, _) = run(engine, [0xB8, 0, 0, 0, 0xB0, 0xFF, 0xE0])
        #expect(status == 81)
    }

    @Test(arguments: TestEngine.all) func keyboardControllersResetStartsOverOrEnds(engine: String) {
        // mov al, 0xfe; out 0x64, al; jmp $
        let (status, text) = run(engine, [0xB0, 0xFE, 0xE6, 0x64, 0xEB, 0xFE], "--no-reboot")
        #expect(status == 0)
        #expect(text == "")
    }

    @Test(arguments: TestEngine.all) func resetKeepsMemoryAndLoadsTheKernelAgain(engine: String) {
        // The second time round, what the first time left at 2 MiB is there: inc dword [0x200000]; cmp dword [0x200000], 3; jae end;
        // reset; jmp $; end: debug exit.
        let code: [UInt8] =
            [0xFF, 0x05, 0, 0, 0x20, 0, 0x83, 0x3D, 0, 0, 0x20, 0, 3, 0x73, 6, 0xB0, 0xFE, 0xE6, 0x64, 0xEB, 0xFE]
            + debugExit
        let (status, _) = run(engine, code, "--device", "debug-exit")
        #expect(status == 0x21)
    }

    @Test(arguments: TestEngine.all) func acpiPowersOff(engine: String) {
        // PM1a_CNT: SLP_TYP 5, SLP_EN. mov dx, 0x604; mov ax, 0x3400; out dx, ax; jmp $
        let (status, _) = run(engine, [0x66, 0xBA, 0x04, 0x06, 0x66, 0xB8, 0x00, 0x34, 0x66, 0xEF, 0xEB, 0xFE])
        #expect(status == 0)
    }

    @Test(arguments: TestEngine.all) func panicThatIsReportedEndsTheMachine(engine: String) {
        // mov dx, 0x505; mov al, 1; again: out dx, al; jmp again
        let (status, text) = run(engine, [0x66, 0xBA, 0x05, 0x05, 0xB0, 1, 0xEE, 0xEB, 0xFD])
        #expect(status == 80)
        #expect(text.hasPrefix("davit: the guest reports a panic\ndavit: ended because the guest panicked"))
    }

    @Test(arguments: TestEngine.all) func modulesArriveWithTheirArguments(engine: String) {
        // Multiboot information in EBX: mods_count at 20, mods_addr at 24; each module: start, end, string, 0.
        // mov eax, [ebx+24]; mov eax, [eax+8] (string); movzx eax, byte [eax+len-1] would need the path's length: so exit with the
        // module's first byte: mov eax, [ebx+24]; mov eax, [eax]; movzx eax, byte [eax]; out 0xf4, al; hlt
        let module = HandMadeKernel(file: Array("*rest".utf8))
        let (status, _) = run(
            engine, [0x8B, 0x43, 24, 0x8B, 0x00, 0x0F, 0xB6, 0x00, 0xE6, 0xF4, 0xF4], "--device", "debug-exit",
            "--module",
            "\(module.path) some arguments")
        #expect(status == Int32(UInt8(ascii: "*")) << 1 | 1)
    }

    @Test func statisticsAndTraces() {
        let (status, text) = run("soft,translator=off", debugExit, "--device", "debug-exit", "--stats", "--trace", "io")
        #expect(status == 0x21)
        #expect(text.contains("davit: io port write 0xf4.1 = 0x10 debug-exit\n"))
        #expect(text.contains("davit: vcpu0 instructions: "))
    }
}
