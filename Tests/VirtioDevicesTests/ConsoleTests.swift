import DavitTesting
import MachineModel
import Synchronization
import Testing
import VirtioQueue

@testable import VirtioDevices

@Suite struct ConsoleTests {
    private let into: UInt64 = 0x20_0000
    private let from: UInt64 = 0x30_0000
    private let console = MemoryByteChannel()
    private let program = MemoryByteChannel()

    /// Two ports: a console, and one for a program by the name of `agent`.
    private func bench(without refused: VirtioFeatures = [], isPacked: Bool = false) -> DeviceBench {
        DeviceBench(
            VirtioConsole(
                name: "console", ports: [.init(channel: console), .init(name: "agent", channel: program)]),
            isPacked: isPacked, without: refused)
    }

    private let multiport = VirtioFeatures(bit: 1)

    /// The driver sends a control message.
    private func send(_ bench: DeviceBench, _ port: UInt32, _ event: UInt16, _ value: UInt16) {
        bench.put(port, at: from)
        bench.put(event, at: from + 4)
        bench.put(value, at: from + 6)
        bench.queues[3].add([GuestBuffer(from, 8)])
        bench.device.notify(queue: 3)
        #expect(bench.queues[3].takeUsed() != nil)
    }

    /// What the driver is told, in the `count` buffers that it gives.
    private func messages(_ bench: DeviceBench, _ count: UInt64) -> [[UInt8]] {
        for i in 0..<count { bench.queues[2].add([GuestBuffer(into + i * 64, 64, isWritable: true)]) }
        bench.device.notify(queue: 2)
        return (0..<count).map { i in
            bench.queues[2].takeUsed().map { bench.bytes(at: into + i * 64, Int($0.written)) } ?? []
        }
    }

    private func output(_ bench: DeviceBench, queue: Int, _ text: String) {
        bench.put(Array(text.utf8), at: from)
        bench.queues[queue].add([GuestBuffer(from, UInt32(text.utf8.count))])
        bench.device.notify(queue: queue)
    }

    @Test(arguments: [false, true]) func bytesGoBothWays(isPacked: Bool) {
        let bench = bench(without: multiport, isPacked: isPacked)
        output(bench, queue: 1, "to the host")
        #expect(console.sentText == "to the host")
        #expect(bench.queues[1].takeUsed() != nil)
        // Without a buffer input waits; then it goes into as many as it needs.
        console.receive("to the guest")
        #expect(console.pendingBytes == 12)
        bench.queues[0].add([GuestBuffer(into, 7, isWritable: true)])
        bench.queues[0].add([GuestBuffer(into + 7, 100, isWritable: true)])
        bench.device.notify(queue: 0)
        #expect(bench.queues[0].takeUsed()?.written == 7)
        #expect(bench.queues[0].takeUsed()?.written == 5)
        #expect(bench.bytes(at: into, 12) == Array("to the guest".utf8))
    }

    /// 5.3.5, 5.3.6.2: the driver asks for ports, and says of each that it is ready.
    @Test func portsAreIntroduced() {
        let bench = bench()
        (bench.device as? VirtioConsole)?.setSize((25, 80))
        send(bench, .max, 0, 1)
        #expect(messages(bench, 2) == [[0, 0, 0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 1, 0, 0, 0]])
        send(bench, 0, 3, 1)
        #expect(
            messages(bench, 3) == [
                [0, 0, 0, 0, 4, 0, 1, 0], [0, 0, 0, 0, 6, 0, 1, 0], [0, 0, 0, 0, 5, 0, 0, 0, 80, 0, 25, 0],
            ])
        send(bench, 1, 3, 1)
        #expect(messages(bench, 2) == [[1, 0, 0, 0, 7, 0, 1, 0] + Array("agent".utf8), [1, 0, 0, 0, 6, 0, 1, 0]])
        (bench.device as? VirtioConsole)?.setSize((50, 132))
        #expect(messages(bench, 1) == [[0, 0, 0, 0, 5, 0, 0, 0, 132, 0, 50, 0]])
        #expect(bench.configurationChanges == 0)
    }

    /// Without ports of its own the driver looks at the configuration (5.3.4).
    @Test func theSizeIsInTheConfiguration() {
        let bench = bench(without: multiport)
        (bench.device as? VirtioConsole)?.setSize((0x1234, 0x5678))
        #expect(bench.configurationChanges == 1)
        #expect(bench.device.configuration() == [0x78, 0x56, 0x34, 0x12, 2, 0, 0, 0, 0, 0, 0, 0])
    }

    @Test func aProgramsPortIsFilledWhileItIsOpen() {
        let bench = bench()
        bench.queues[4].add([GuestBuffer(into, 100, isWritable: true)])
        bench.device.notify(queue: 4)
        program.receive("early")
        #expect(bench.queues[4].takeUsed() == nil)
        send(bench, 1, 6, 1)
        #expect(bench.queues[4].takeUsed()?.written == 5)
        send(bench, 1, 6, 0)
        bench.queues[4].add([GuestBuffer(into, 100, isWritable: true)])
        program.receive("late")
        #expect(bench.queues[4].takeUsed() == nil)
        output(bench, queue: 5, "from a program")
        #expect(program.sentText == "from a program")
    }

    @Test func aFullChannelMakesTheGuestWait() {
        let bench = bench()
        console.room = 3
        output(bench, queue: 1, "12345")
        output(bench, queue: 1, "67890")
        #expect(bench.queues[1].takeUsed() == nil)
        console.room = 1000
        #expect(console.sentText.count == 10)
        #expect(bench.queues[1].takeUsed() != nil && bench.queues[1].takeUsed() != nil)
    }

    /// A chain that the channel has refused the rest of does not hold a reset up, and the next driver begins anew.
    @Test func resetWhileTheGuestWaits() {
        let bench = bench()
        console.room = 2
        output(bench, queue: 1, "12345")
        let isDone = Flag()
        bench.device.reset { isDone.set() }
        #expect(isDone.isSet)
        console.room = 1000
        #expect(console.sentText == "12")
    }

    /// A channel that takes two bytes, and while it does something else happens.
    private final class BusyChannel: ByteChannel {
        let meanwhile = Mutex<(@Sendable () -> Void)?>(nil)

        func write(_ bytes: UnsafeRawBufferPointer) -> Int {
            meanwhile.withLock { $0 }?()
            return min(2, bytes.count)
        }
        func onWritable(_ callback: (@Sendable () -> Void)?) {}
        func onReceive(_ receiver: (@Sendable (UnsafeRawBufferPointer) -> Int)?) {}
        func resumeReading() {}
    }

    /// 9: a reset while a chain is with the channel waits for it, and no longer.
    @Test func aResetWhileTheChannelIsAtWork() {
        let channel = BusyChannel()
        let bench = DeviceBench(VirtioConsole(name: "console", ports: [.init(channel: channel)]))
        let (isDone, wasDoneAtOnce) = (Flag(), Flag())
        channel.meanwhile.withLock {
            $0 = {
                bench.device.reset { isDone.set() }
                if isDone.isSet { wasDoneAtOnce.set() }
            }
        }
        output(bench, queue: 1, "12345")
        #expect(isDone.isSet && !wasDoneAtOnce.isSet)
        #expect(bench.queues[1].takeUsed() == nil)
    }

    @Test func aQueueThatIsResetLetsGo() {
        let bench = bench()
        console.room = 2
        output(bench, queue: 1, "12345")
        #expect(bench.resetQueue(1))
        console.room = 1000
        #expect(console.sentText == "12")
        for queue in [0, 2, 3, 4, 5] { #expect(bench.resetQueue(queue)) }
    }

    @Test func emergencyWrite() {
        let bench = bench()
        bench.device.writeConfiguration(offset: 8, [0x21, 0, 0, 0])
        bench.device.writeConfiguration(offset: 0, [0x22])
        bench.device.writeConfiguration(offset: 8, [])
        #expect(console.sentText == "!")
    }

    /// 6: messages that are too short, of no event, or about no port change nothing; a driver that asks over and over without taking the
    /// answers gets each once.
    @Test func messagesOfNoUse() {
        let bench = bench()
        send(bench, 2, 3, 1)
        send(bench, .max, 6, 1)
        send(bench, 0, 99, 1)
        send(bench, 0, 0, 0)
        bench.queues[3].add([GuestBuffer(from, 7)])
        bench.queues[3].add([GuestBuffer(into, 8, isWritable: true)])
        bench.device.notify(queue: 3)
        for _ in 0..<1000 { send(bench, .max, 0, 1) }
        #expect(messages(bench, 3) == [[0, 0, 0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 1, 0, 0, 0], []])
        #expect(bench.failures.isEmpty)
    }
}
