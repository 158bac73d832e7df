import MachineModel
import Synchronization

/// One bus: functions by device number. They come while the machine is built.
final class PCIBus: Sendable {
    static let deviceCount = 32
    /// Guards which devices there are.
    private let devices = Mutex<[(any PCIConfigurable)?]>(Array(repeating: nil, count: deviceCount))

    /// Device numbers that nothing has, in ascending order.
    var firstFree: Int? { devices.withLock { $0.firstIndex { $0 == nil } } }

    func insert(_ function: any PCIConfigurable, at device: Int) { devices.withLock { $0[device] = function } }

    /// Function 0 of a device; there are no others.
    func find(device: Int, function: Int) -> (any PCIConfigurable)? {
        guard function == 0 else { return nil }
        return devices.withLock { $0[device] }
    }
}
