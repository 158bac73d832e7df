import DavitTesting
import MachineModel
import Testing

@testable import Chipset

@Suite struct UART16550Tests {
    let clock = ManualClock()
    let irq = RecordingIRQLine()
    let channel = MemoryByteChannel()
    let uart: UART16550

    init() { uart = UART16550(irq: irq, channel: channel, clock: clock) }

    /// Speed 115200, 8N1, DTR, RTS and OUT2 on, FIFOs on with a trigger level of 8.
    func setUp() {
        uart.out(3, 0x83)
        uart.out(0, 1)
        uart.out(1, 0)
        uart.out(3, 0x03)
        uart.out(4, 0x0B)
        uart.out(2, 0x87)
    }

    // MARK: Probing

    @Test func powerOnState() {
        #expect((0...7).map { uart.byte($0) } == [0, 0, 0x01, 0, 0, 0x60, 0xB0, 0])
    }

    /// The steps by which Linux tells an 8250 from a 16450, 16550, 16550A, 16650 and 16750.
    @Test func isRecognizedAs16550A() {
        uart.out(1, 0)
        #expect(uart.byte(1) & 0x0F == 0)
        uart.out(1, 0x0F)
        #expect(uart.byte(1) & 0x0F == 0x0F)
        uart.out(1, 0)
        // Loopback: RTS and OUT2 come back as CTS and DCD.
        uart.out(4, 0x1A)
        #expect(uart.byte(6) & 0xF0 == 0x90)
        uart.out(4, 0)
        uart.out(2, 0x01)
        #expect(uart.byte(2) >> 6 == 3)
        // No enhanced features: the register behind LCR values 0x80 and 0xBF is IIR still, and is not zero.
        uart.out(3, 0x80)
        #expect(uart.byte(2) != 0)
        uart.out(3, 0xBF)
        #expect(uart.byte(2) != 0)
        // No 64-byte FIFO: IIR bit 5 stays off.
        uart.out(3, 0)
        uart.out(2, 0x21)
        #expect(uart.byte(2) >> 5 == 6)
        // No UUE bit.
        uart.out(1, 0x40)
        #expect(uart.byte(1) == 0)
    }

    @Test func scratchAndDivisorKeepWhatIsWritten() {
        uart.out(7, 0xA5)
        #expect(uart.byte(7) == 0xA5)
        uart.out(3, 0x80)
        uart.out(0, 0x34)
        uart.out(1, 0x12)
        #expect(uart.byte(0) == 0x34)
        #expect(uart.byte(1) == 0x12)
        uart.out(3, 0)
        #expect(uart.byte(1) == 0, "IER is back")
    }

    /// Linux looks whether enabling ETBEI raises the interrupt each time, and takes the chip for a broken one if not.
    @Test func enablingTheEmptyInterruptRaisesItEachTime() {
        setUp()
        uart.out(1, 0x02)
        #expect(uart.byte(2) == 0xC2)
        #expect(uart.byte(2) == 0xC1, "reading IIR takes it back")
        uart.out(1, 0)
        uart.out(1, 0x02)
        #expect(uart.byte(2) == 0xC2)
    }

    // MARK: Output

    @Test func aLineGoesOutAsOneBlock() {
        setUp()
        for byte in "Linux version 6.1\n".utf8 {
            #expect(uart.byte(5) & 0x60 == 0x60)
            uart.out(0, byte)
        }
        #expect(channel.sentText == "Linux version 6.1\n")
        #expect(channel.writes == 1)
    }

    @Test func aPromptGoesOutAfterAMillisecond() {
        setUp()
        for byte in "login: ".utf8 { uart.out(0, byte) }
        #expect(channel.sentText == "")
        clock.advance(by: 1_000_000)
        #expect(channel.sentText == "login: ")
        uart.out(0, 0x78)
        uart.flush()
        #expect(channel.sentText == "login: x")
        clock.advance(by: 10_000_000)
        #expect(channel.writes == 2)
    }

    @Test func anUnsetUpChipSendsToo() {
        for byte in "hello\n".utf8 { uart.out(0, byte) }
        #expect(channel.sentText == "hello\n")
    }

    @Test func aFullChannelHoldsTheGuestBackAndLosesNothing() {
        setUp()
        channel.room = 100
        var sent = 0
        while uart.byte(5) & 0x20 != 0, sent < 100_000 {
            // A driver writes a FIFO's worth each time it sees THRE.
            for _ in 0..<16 {
                uart.out(0, UInt8(truncatingIfNeeded: sent))
                sent += 1
            }
        }
        #expect(sent < 10_000)
        #expect(uart.byte(5) & 0x60 == 0)
        uart.out(1, 0x02)
        #expect(!irq.level)
        // The channel drains: the interrupt says that there is room.
        channel.room = Int.max
        #expect(irq.level)
        #expect(uart.byte(5) & 0x60 == 0x60)
        #expect(channel.sent == (0..<sent).map { UInt8(truncatingIfNeeded: $0) })
    }

    @Test func charactersPastAFullFIFOAreLost() {
        setUp()
        channel.room = 0
        for _ in 0..<10_000 { uart.out(0, 0x55) }
        channel.room = Int.max
        #expect(channel.sent.count == UART16550.backlogLimit + 16)
    }

    @Test func withoutAChannelOutputIsLostAndNothingHangs() {
        let uart = UART16550(irq: irq, channel: nil, clock: clock)
        for _ in 0..<10_000 { uart.out(0, 0x55) }
        #expect(uart.byte(5) == 0x60)
        #expect(clock.armedTimers == 0)
    }

    @Test func eachCharacterSentIsAnEdge() {
        setUp()
        uart.out(1, 0x02)
        irq.clear()
        uart.out(0, 0x41)
        #expect(irq.edges == [false, true])
    }

    // MARK: Input

    @Test func withoutFIFOsCharactersComeOneByOne() {
        uart.out(4, 0x08)
        uart.out(1, 0x01)
        channel.receive("ab")
        #expect(irq.level)
        #expect(uart.byte(2) == 0x04)
        #expect(channel.pendingBytes == 1)
        #expect(uart.byte(5) == 0x61)
        #expect(uart.byte(0) == 0x61)
        #expect(irq.edges == [true, false, true], "the next one comes in at once")
        #expect(uart.byte(0) == 0x62)
        #expect(uart.byte(5) == 0x60)
        #expect(!irq.level)
    }

    @Test(arguments: [(0x01, 1), (0x41, 4), (0x81, 8), (0xC1, 14)])
    func theTriggerLevelRaisesTheInterrupt(fcr: UInt8, trigger: Int) {
        setUp()
        uart.out(2, fcr)
        uart.out(1, 0x01)
        for count in 1..<trigger {
            channel.receive("x")
            #expect(!irq.level, "after \(count)")
        }
        channel.receive("x")
        #expect(irq.level)
        #expect(uart.byte(2) == 0xC4)
        _ = uart.byte(0)
        #expect(!irq.level)
    }

    @Test func fewerCharactersRaiseTheTimeout() {
        setUp()
        uart.out(1, 0x01)
        channel.receive("abc")
        #expect(uart.byte(2) == 0xC1)
        // Four characters of ten bits at 115200 baud.
        clock.advance(by: 347_000)
        #expect(uart.byte(2) == 0xC1)
        clock.advance(by: 1_000)
        #expect(irq.level)
        #expect(uart.byte(2) == 0xCC)
        #expect(uart.byte(2) == 0xCC, "only reading the data ends it")
        #expect(uart.byte(0) == 0x61)
        #expect(uart.byte(2) == 0xC1)
        clock.advance(by: 348_000)
        #expect(uart.byte(2) == 0xCC)
        #expect(uart.byte(0) == 0x62)
        #expect(uart.byte(0) == 0x63)
        #expect(clock.armedTimers == 0)
    }

    @Test func aLongPasteIsHeldBackAndArrivesWhole() {
        setUp()
        let paste = (0..<5_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        channel.receive(paste)
        #expect(channel.pendingBytes == 5_000 - 16)
        var read: [UInt8] = []
        while uart.byte(5) & 0x01 != 0 { read.append(uart.byte(0)) }
        #expect(read == paste)
        #expect(uart.byte(5) & 0x02 == 0, "no overrun")
    }

    @Test func resettingTheReceiverLetsHeldInputIn() {
        setUp()
        channel.receive([UInt8](repeating: 0x61, count: 20))
        uart.out(2, 0x83)
        #expect(channel.pendingBytes == 0)
        #expect(uart.byte(5) & 0x01 == 1)
    }

    @Test func aBreakIsAZeroWithItsMark() {
        setUp()
        uart.out(1, 0x04)
        channel.receive("a")
        uart.receiveBreak()
        #expect(uart.byte(5) == 0xE1, "an error is in the FIFO, but not in the character on top")
        #expect(!irq.level)
        #expect(uart.byte(0) == 0x61)
        #expect(irq.level)
        #expect(uart.byte(2) == 0xC6)
        #expect(uart.byte(5) == 0xF9)
        #expect(!irq.level, "reading LSR ends it")
        #expect(uart.byte(5) == 0x61)
        #expect(uart.byte(0) == 0)
    }

    // MARK: Interrupts

    @Test func sourcesComeByPriority() {
        setUp()
        uart.out(2, 0x01)
        uart.out(1, 0x0F)
        uart.receiveBreak()
        // RI ends: a modem status interrupt.
        uart.out(4, 0x1C)
        uart.out(4, 0x08)
        #expect(uart.byte(2) == 0xC6)
        _ = uart.byte(5)
        #expect(uart.byte(2) == 0xC4)
        _ = uart.byte(0)
        #expect(uart.byte(2) == 0xC2)
        #expect(uart.byte(2) == 0xC0)
        #expect(uart.byte(6) & 0x04 != 0)
        #expect(uart.byte(2) == 0xC1)
        #expect(!irq.level)
    }

    @Test func out2GatesTheLine() {
        uart.out(1, 0x02)
        #expect(uart.byte(2) == 0x02)
        uart.out(1, 0)
        uart.out(1, 0x02)
        #expect(!irq.level)
        uart.out(4, 0x08)
        #expect(irq.level)
        uart.out(4, 0)
        #expect(!irq.level)
    }

    // MARK: Loopback

    @Test func loopbackBringsCharactersBack() {
        setUp()
        uart.out(4, 0x1B)
        uart.out(0, 0xAE)
        #expect(uart.byte(5) == 0x61)
        #expect(uart.byte(0) == 0xAE)
        channel.receive("x")
        #expect(uart.byte(5) == 0x60, "the line is disconnected")
        #expect(channel.sent == [])
        uart.out(4, 0x0B)
        #expect(uart.byte(0) == 0x78, "and connected again")
    }

    @Test func loopbackOverrunsTheFIFO() {
        setUp()
        uart.out(4, 0x1B)
        for byte in 0..<UInt8(17) { uart.out(0, byte) }
        #expect(uart.byte(5) & 0x02 != 0)
        #expect((0..<17).map { _ in uart.byte(0) } == [UInt8](0..<16) + [0])
        uart.out(2, 0)
        uart.out(0, 1)
        uart.out(0, 2)
        #expect(uart.byte(0) == 2, "without FIFOs the newer character wins")
    }

    @Test func loopbackBreakIsReceived() {
        setUp()
        uart.out(4, 0x1B)
        uart.out(3, 0x43)
        #expect(uart.byte(5) & 0x10 != 0)
        #expect(uart.byte(0) == 0)
    }

    @Test func modemLinesFollowInLoopback() {
        for (mcr, msr) in [(0x11, 0x20), (0x12, 0x10), (0x14, 0x40), (0x18, 0x80)] as [(UInt8, UInt8)] {
            uart.out(4, mcr)
            #expect(uart.byte(6) & 0xF0 == msr)
            #expect(uart.byte(6) & 0x0F == 0, "reading MSR forgets the changes")
        }
        uart.out(4, 0x10)
        _ = uart.byte(6)
        uart.out(4, 0)
        #expect(uart.byte(6) == 0xBB)
    }

    // MARK: State

    @Test func stateSurvivesSaveAndRestore() throws {
        setUp()
        uart.out(1, 0x05)
        channel.receive("abcdefghij")
        uart.out(0, 0x3E)
        let state = uart.saveState()
        let otherIRQ = RecordingIRQLine()
        let otherChannel = MemoryByteChannel()
        let other = UART16550(irq: otherIRQ, channel: otherChannel, clock: clock)
        try other.restore(state)
        #expect(other.saveState().receiver == state.receiver)
        #expect(otherIRQ.level)
        #expect(otherChannel.sentText == ">")
        #expect((0..<10).map { _ in other.byte(0) } == [UInt8]("abcdefghij".utf8))
    }

    @Test func impossibleStatesAreRefused() {
        setUp()
        let good = uart.saveState()
        let lies: [(inout UART16550State) -> Void] = [
            { $0.version = 2 },
            { $0.ier = 0x80 },
            { $0.mcr = 0x20 },
            { $0.fcr = 0x80 },
            { $0.fcr = 0x07 },
            { $0.errors = 0x80 },
            { $0.receiver = [UInt16](repeating: 0, count: 17) },
            { $0.receiver = [0x8000] },
            { $0.transmitter = [UInt8](repeating: 0, count: 17) },
            { $0.backlog = [UInt8](repeating: 0, count: 5_000) },
        ]
        for lie in lies {
            var state = good
            lie(&state)
            #expect(throws: InvalidDeviceState.self) { try uart.restore(state) }
        }
        #expect(uart.saveState() == good)
    }

    // MARK: Hostile guests

    @Test func anyAccessIsSurvived() {
        var random = SplitMix(seed: 0x16550)
        for _ in 0..<50_000 {
            let value = random.next()
            uart.hammer(offset: UInt16(value & 7), value: value, widths: 3)
            if value >> 40 & 0xFF == 0 { channel.receive([UInt8](repeating: 0x7A, count: Int(value >> 48 & 63))) }
            if value >> 40 & 0xFF == 1 { channel.room = Int(value >> 48 & 0xFF) }
            if value >> 40 & 0x1F == 2 { clock.advance(by: value >> 48) }
            if value >> 40 & 0xFF == 3 { uart.receiveBreak() }
        }
        channel.room = Int.max
        let state = uart.saveState()
        #expect(state.receiver.count <= 16)
        #expect(state.transmitter.isEmpty)
        #expect(throws: Never.self) { try uart.restore(state) }
    }
}
