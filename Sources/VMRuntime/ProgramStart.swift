import HostLinux
import SoftEngine

/// To be called as the program starts, before all else.
public enum ProgramStart {
    public static func note() {
        SoftEngine.beginMeasuring()
        AddressSpace.allocateFromOneHeap()
    }
}
