import GuestMemory
import Synchronization
import Testing

@Suite struct WriteObserverTests {
    /// A device tells of every write: the hundred-thousandth must not cost more than the first. (It did: each look at the observer
    /// wrapped it once more, until the stack was full.)
    @Test func tellingAgainAndAgainStaysCheap() throws {
        let memory = try GuestMemory(size: 1 << 20)
        let count = Mutex(0)
        _ = memory.observeWrites { _ in count.withLock { $0 += 1 } }
        let clock = ContinuousClock()
        func round() -> Duration {
            clock.measure { for _ in 0..<10_000 { memory.didWrite(at: GuestPhysicalAddress(0x1000), count: 8) } }
        }
        let first = round()
        for _ in 0..<10 { _ = round() }
        let last = round()
        #expect(count.withLock { $0 } == 120_000)
        // Ten times is what a busy host may add; a growing wrapper adds thousands.
        #expect(last < first * 10 + .milliseconds(100))
    }
}
