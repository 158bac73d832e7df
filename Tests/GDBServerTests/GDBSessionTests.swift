import DavitTesting
import GuestMemory
import MachineModel
import Synchronization
import Testing
import X86

@testable import GDBServer

/// A vCPU that stands, with a state as it was given.
private final class StandingVCPU: VCPU {
    let index: Int
    private let state = Mutex(VCPUState())
    let wanted = Mutex(DebugRequest())
    /// As many breakpoints as it takes.
    let room: Int

    init(index: Int, room: Int = .max) {
        self.index = index
        self.room = room
    }

    func run() -> VCPUExit { .stopped }
    func requestStop() {}
    func saveState() -> VCPUState { state.withLock { $0 } }
    func restore(_ new: VCPUState) throws(InvalidVCPUState) {
        if new.cr8 > 15 { throw InvalidVCPUState("cr8") }
        state.withLock { $0 = new }
    }
    func setDebug(_ request: DebugRequest) throws(DebugRefusal) {
        if request.breakpoints.count > room { throw DebugRefusal() }
        wanted.withLock { $0 = request }
    }
}

/// A debugger that asks a session whose vCPUs stand.
private final class Client {
    var session: GDBSession
    let memory: GuestMemory
    let vcpus: [StandingVCPU]

    init(vcpuCount: Int = 2, room: Int = .max) throws {
        memory = try GuestMemory(size: 4 << 20)
        vcpus = (0..<vcpuCount).map { StandingVCPU(index: $0, room: room) }
        session = GDBSession(memory: memory)
        session.use(vcpus)
        session.begin()
    }

    /// What is answered, without its frame; nil if nothing is.
    func ask(_ packet: String) -> String? {
        let output = session.receive(GDBPacket.frame(Array(packet.utf8)), stop: {})
        guard output.first == UInt8(ascii: "+"), output.count > 1 else { return nil }
        return String(decoding: output.dropFirst(2).dropLast(3), as: UTF8.self)
    }
}

@Suite struct GDBSessionTests {
    @Test func whatIsOffered() throws {
        let client = try Client()
        let offer = try #require(client.ask("qSupported:multiprocess+;swbreak+"))
        #expect(offer.contains("PacketSize=4000") && offer.contains("qXfer:features:read+"))
        #expect(client.ask("?") == "T05thread:1;")
        #expect(client.ask("qfThreadInfo") == "m1,2")
        #expect(client.ask("qsThreadInfo") == "l")
        #expect(client.ask("vCont?") == "vCont;c;C;s;S")
        #expect(client.ask("vMustReplyEmpty") == "")
        #expect(client.ask("qThreadExtraInfo,2") == "76435055203120" + "2872756e6e696e6729")
    }

    @Test func descriptionInPieces() throws {
        let client = try Client()
        var text = ""
        while true {
            let piece = try #require(
                client.ask("qXfer:features:read:target.xml:\(String(text.utf8.count, radix: 16)),200"))
            text += piece.dropFirst()
            if piece.first == "l" { break }
        }
        for name in ["rax", "rip", "fs_base", "k_gs_base", "cr0", "cr4", "efer", "st7", "xmm15", "mxcsr"] {
            #expect(text.contains("<reg name=\"\(name)\""))
        }
        #expect(client.ask("qXfer:features:read:target.xml:ffffffffffffffff,ffffffffffffffff") == "l")
        #expect(client.ask("qXfer:features:read:target.xml:0") == "E16")
    }

    @Test func registersReadAndWritten() throws {
        let client = try Client()
        // rbx is the second in GDB's order.
        #expect(client.ask("P1=efcdab8967452301") == "OK")
        #expect(client.vcpus[0].saveState().generalRegisters[GeneralRegister.RBX] == 0x0123_4567_89AB_CDEF)
        #expect(client.ask("p1") == "efcdab8967452301")
        let all = try #require(client.ask("g"))
        #expect(all.count == 2 * GDBRegister.all.reduce(0) { $0 + $1.bytes })
        #expect(client.ask("G" + all) == "OK")
        #expect(client.ask("g") == all)
        // The other thread's.
        #expect(client.ask("Hg2") == "OK")
        #expect(client.ask("p1") == "0000000000000000")
    }

    @Test func extendedRegisters() throws {
        let client = try Client()
        func number(_ name: String) throws -> String {
            String(try #require(GDBRegister.all.firstIndex { $0.name == name }), radix: 16)
        }
        #expect(client.ask("p" + (try number("fctrl"))) == "7f030000")
        #expect(client.ask("p" + (try number("mxcsr"))) == "801f0000")
        #expect(client.ask("p" + (try number("ftag"))) == "ffff0000")
        let one = "0000000000000080ff3f"
        #expect(client.ask("P\(try number("st0"))=" + one) == "OK")
        #expect(client.ask("p" + (try number("st0"))) == one)
        #expect(client.ask("P\(try number("ftag"))=fcff0000") == "OK")
        #expect(client.ask("p" + (try number("ftag"))) == "fcff0000")
        let vector = "000102030405060708090a0b0c0d0e0f"
        #expect(client.ask("P\(try number("xmm3"))=" + vector) == "OK")
        #expect(client.ask("p" + (try number("xmm3"))) == vector)
        #expect(client.ask("p" + (try number("fctrl"))) == "7f030000")
        #expect(client.ask("P\(try number("mxcsr"))=ffffffff") == "E16")
        #expect(client.ask("P\(try number("cr8"))=1000000000000000") == "E16")
    }

    @Test func memoryByPageTables() throws {
        let client = try Client()
        var state = VCPUState()
        state.cr0 = CR0.PE | CR0.PG
        state.cr4 = CR4.PAE
        state.efer = EFER.LME | EFER.LMA
        state.cr3 = 0x1000
        try client.vcpus[0].restore(state)
        // 0xFFFF_8000_0000_0000 and the page behind it, which lie apart, and nothing further.
        try client.memory.write(UInt64(0x2003), at: .init(0x1000 + 256 * 8))
        try client.memory.write(UInt64(0x3003), at: .init(0x2000))
        try client.memory.write(UInt64(0x4003), at: .init(0x3000))
        try client.memory.write(UInt64(0x9003), at: .init(0x4000))
        try client.memory.write(UInt64(0x7003), at: .init(0x4008))
        try client.memory.write(bytes: [1, 2], at: .init(0x9FFE))
        try client.memory.write(bytes: [3, 4], at: .init(0x7000))
        #expect(client.ask("mffff800000000ffe,4") == "01020304")
        #expect(client.ask("Mffff800000000fff,2:aabb") == "OK")
        #expect(client.ask("mffff800000000ffe,4") == "01aabb04")
        // As far as it goes, and not at all.
        #expect(client.ask("mffff800000001ffe,8") == "0000")
        #expect(client.ask("mffff800000002000,8") == "E0e")
        #expect(client.ask("Mffff800000001fff,2:aabb") == "E0e")
        #expect(try client.memory.read(UInt8.self, at: .init(0x7FFF)) == 0)
        #expect(client.ask("m9ffe,1") == "E0e")
        #expect(client.ask("Qqemu.PhyMemMode:1") == "OK")
        #expect(client.ask("m9ffe,1") == "01")
        #expect(client.ask("mfffffffffffffff0,ffffffffffffffff") == "E0e")
        // monitor physical off
        #expect(client.ask("qRcmd,706879736963616c206f6666") == "OK")
        #expect(client.ask("qqemu.PhyMemMode") == "0")
    }

    @Test func memoryByTheTablesOf32Bits() throws {
        let client = try Client(vcpuCount: 1)
        var state = VCPUState()
        state.cr0 = CR0.PE | CR0.PG
        state.cr4 = CR4.PSE
        state.cr3 = 0x1000
        try client.vcpus[0].restore(state)
        // 4 MiB at 0xC000_0000, and a page at 0x0040_5000.
        try client.memory.write(UInt32(0x83), at: .init(0x1000 + 0x300 * 4))
        try client.memory.write(UInt32(0x2003), at: .init(0x1004))
        try client.memory.write(UInt32(0x6003), at: .init(0x2000 + 5 * 4))
        try client.memory.write(UInt32(0x0403_0201), at: .init(0x6010))
        #expect(client.ask("mc0006010,4") == "01020304")
        #expect(client.ask("m405010,4") == "01020304")
        // PAE: the directory pointers, then 2 MiB.
        state.cr4 = CR4.PAE
        state.cr3 = 0x3020
        try client.vcpus[0].restore(state)
        try client.memory.write(UInt64(0x4001), at: .init(0x3020 + 3 * 8))
        try client.memory.write(UInt64(0x83), at: .init(0x4000))
        #expect(client.ask("mc0006010,4") == "01020304")
    }

    @Test func breakpointsReachEveryVCPU() throws {
        let client = try Client()
        #expect(client.ask("Z0,1000,1") == "OK")
        #expect(client.ask("Z1,2000,1") == "OK")
        #expect(client.ask("Z3,3000,8") == "OK")
        for vcpu in client.vcpus {
            vcpu.wanted.withLock {
                #expect($0.breakpoints == [0x1000, 0x2000])
                #expect($0.watchpoints == [Watchpoint(kind: .read, address: 0x3000, size: 8)])
            }
        }
        #expect(client.ask("z0,1000,1") == "OK")
        client.vcpus[1].wanted.withLock { #expect($0.breakpoints == [0x2000]) }
        // None are left when the debugger lets go.
        #expect(client.ask("D") == "OK")
        client.vcpus[1].wanted.withLock { #expect($0.isEmpty) }
        #expect(client.session.isRunning)
    }

    @Test func breakpointsThatAnEngineHasNoRoomFor() throws {
        let client = try Client(room: 1)
        #expect(client.ask("Z1,1000,1") == "OK")
        #expect(client.ask("Z1,2000,1") == "E1c")
        client.vcpus[0].wanted.withLock { #expect($0.breakpoints == [0x1000]) }
    }

    @Test func goingOnAndStopping() throws {
        let client = try Client()
        #expect(client.ask("qSupported:swbreak+")?.isEmpty == false)
        #expect(client.ask("Z0,fff0,1") == "OK")
        #expect(client.ask("vCont;s:2;c") == nil)
        #expect(client.session.isRunning && client.session.resumed == [0, 1])
        client.vcpus[0].wanted.withLock { #expect(!$0.singleStep) }
        client.vcpus[1].wanted.withLock { #expect($0.singleStep) }
        // While they run nobody looks at them.
        #expect(client.ask("g") == "E10")
        var stops = 0
        let stop = client.session.receive([3]) { stops += 1 }
        #expect(stops == 1 && stop == GDBPacket.frame(Array("T02thread:1;".utf8)))
        #expect(client.ask("vCont;c:2") == nil)
        #expect(client.session.resumed == [1])
        let hit = client.session.didStop(vcpu: 1, .breakpoint)
        #expect(String(decoding: hit.dropLast(3), as: UTF8.self) == "$T05thread:2;swbreak:;")
        #expect(client.ask("qC") == "QC2")
    }

    /// None of these does anything.
    @Test(arguments: [
        "p", "pffffffffffffffff", "p10000", "P", "P0", "P0=", "P0=12", "P99=00", "Pz=00", "G", "G00", "Gzz", "m", "m0",
        "m0,",
        "m,0", "m0,10000000000000000", "M0,4:00", "M0,1:0", "M0,1:zz", "M0,1", "Z0", "Z0,1", "Z2,0,0",
        "Z2,0,ffffffffffffffff",
        "Z00,0,1", "H", "Hx1", "Hg3", "Hgffffffffffffffff", "T", "T0", "T3", "vCont;", "vCont;c:3", "vCont;x",
        "vCont;c:1:1",
        "vCont;c;;", "cz", "szz", "qThreadExtraInfo,", "qThreadExtraInfo,9", "qRcmd,z", "qRcmd,0", "Qqemu.PhyMemMode:2",
    ]) func badPackets(packet: String) throws {
        let client = try Client()
        #expect(client.ask(packet) == "E16")
        #expect(!client.session.isRunning && !client.session.isKilled)
        #expect(client.session.vcpus.allSatisfy { $0.saveState() == VCPUState() })
    }

    @Test(.timeLimit(.minutes(1))) func randomBytesEndNothing() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("seed \(seed)")
        var random = SeededGenerator(seed: seed)
        let letters = Array("?gGpPmMZzHTcsCSDqQvk$#,;:=0123456789abcdef+-".utf8)
        let client = try Client()
        for _ in 0..<20000 {
            let count = Int.random(in: 0...24, using: &random)
            let packet = (0..<count).map { _ in
                Int.random(in: 0..<8, using: &random) == 0
                    ? UInt8.random(in: 0...255, using: &random) : letters.randomElement(using: &random) ?? 0
            }
            _ = client.session.receive(packet, stop: {})
            _ = client.session.receive(GDBPacket.frame(packet), stop: {})
            if client.session.isRunning { _ = client.session.receive([3], stop: {}) }
        }
        client.session.begin()
        #expect(client.ask("?") == "T05thread:1;")
    }
}
