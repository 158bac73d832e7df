import GuestMemory
import HostLinux
import MachineModel
import Synchronization

/// The notification registers of a device's active queues, as far as the host's kernel takes the writes to them: a thread of the device's waits
/// for them. Where the kernel does not, the writes come through the device's registers as ever.
final class QueueDoorbells: Sendable {
    private struct Doorbell: Sendable {
        let event: EventFD
        let address: GuestPhysicalAddress
    }

    private struct State: Sendable {
        /// Where queue 0's register stands; nil while it stands nowhere.
        var base: GuestPhysicalAddress?
        var active: [Bool]
        var doorbells: [Doorbell?]
    }

    private let space: any DoorbellSpace
    private let notify: @Sendable (_ queue: Int) -> Void
    /// In bytes, from one queue's register to the next.
    private let stride: UInt64
    private let loop: EventLoop
    /// Guards where the registers are, and that the kernel follows. `notify` is not called under it.
    private let state: Mutex<State>

    /// Starts the thread, on which `notify` is called for `count` queues.
    init(
        _ space: any DoorbellSpace, name: String, count: Int, stride: UInt64,
        notify: @escaping @Sendable (_ queue: Int) -> Void
    ) throws(SystemError) {
        self.space = space
        self.notify = notify
        self.stride = stride
        loop = try EventLoop(name: "davit-\(name)")
        state = Mutex(
            State(active: Array(repeating: false, count: count), doorbells: Array(repeating: nil, count: count)))
    }

    func move(to base: GuestPhysicalAddress?) {
        state.withLock { state in
            state.base = base
            follow(&state)
        }
    }

    /// Which queues have a driver that may notify; none in a device that is being reset.
    func setActive(_ active: [Bool]) {
        state.withLock { state in
            for queue in state.active.indices { state.active[queue] = queue < active.count && active[queue] }
            follow(&state)
        }
    }

    /// Ends the thread.
    func close() {
        setActive([])
        loop.stop()
    }

    private func follow(_ state: inout State) {
        for queue in state.active.indices {
            let wanted =
                state.active[queue]
                ? state.base.map { GuestPhysicalAddress($0.rawValue + UInt64(queue) * stride) } : nil
            guard wanted != state.doorbells[queue]?.address else { continue }
            if let doorbell = state.doorbells[queue].take() { remove(doorbell, of: queue) }
            if let wanted { state.doorbells[queue] = makeDoorbell(of: queue, at: wanted) }
        }
    }

    private func makeDoorbell(of queue: Int, at address: GuestPhysicalAddress) -> Doorbell? {
        do throws(SystemError) {
            let event = try EventFD()
            try loop.watch(event.descriptor) { [notify] in
                if event.drain() > 0 { notify(queue) }
            }
            guard space.attach(event.descriptor, at: address) else {
                loop.forget(event.descriptor)
                return nil
            }
            return Doorbell(event: event, address: address)
        } catch {
            return nil
        }
    }

    private func remove(_ doorbell: Doorbell, of queue: Int) {
        space.detach(doorbell.event.descriptor, from: doorbell.address)
        loop.forget(doorbell.event.descriptor)
        // A register that moves loses no notification.
        if doorbell.event.drain() > 0 { loop.perform { [notify] in notify(queue) } }
    }
}
