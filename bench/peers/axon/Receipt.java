import static org.axonframework.modelling.command.AggregateLifecycle.apply;

import com.fasterxml.jackson.annotation.JsonInclude;
import java.math.BigDecimal;
import java.math.RoundingMode;
import java.util.ArrayList;
import java.util.List;
import org.axonframework.commandhandling.CommandHandler;
import org.axonframework.eventsourcing.EventSourcingHandler;
import org.axonframework.modelling.command.AggregateIdentifier;
import org.axonframework.modelling.command.TargetAggregateIdentifier;

/** The aggregate: a receipt, with the rules of the domain's `purchase` for recording one. */
public class Receipt {

  public record RungLine(String sku, BigDecimal quantity, BigDecimal unitPrice) {}

  public record Tender(String type, long amountMinor) {}

  public record Record(
      @TargetAggregateIdentifier String id,
      String source,
      String store,
      String till,
      String receipt,
      String businessDate,
      String currency,
      List<RungLine> lines,
      long taxMinor,
      List<Tender> tenders) {}

  public record Line(String sku, String quantity, String unitPrice, long amountMinor) {}

  /** The same fields as the domain's event, plus the aggregate's id. */
  @JsonInclude(JsonInclude.Include.NON_NULL)
  public record Recorded(
      String id,
      String kind,
      String source,
      String store,
      String till,
      String receipt,
      String businessDate,
      String currency,
      List<Line> lines,
      long totalMinor,
      long taxMinor,
      List<Tender> tenders) {}

  @AggregateIdentifier private String id;
  private long totalMinor;

  protected Receipt() {}

  @CommandHandler
  public Receipt(Record command) {
    require(!command.source().isBlank(), "the source is empty");
    require(!command.receipt().isBlank(), "the receipt is empty");
    require(!command.lines().isEmpty(), "a purchase has at least one line");
    List<Line> lines = new ArrayList<>(command.lines().size());
    long total = 0;
    for (RungLine line : command.lines()) {
      require(!line.sku().isBlank(), "the sku is empty");
      BigDecimal exact = line.quantity().multiply(line.unitPrice()).movePointRight(2);
      long amount = exact.setScale(0, RoundingMode.HALF_EVEN).longValueExact();
      total = Math.addExact(total, amount);
      lines.add(new Line(line.sku(), line.quantity().toPlainString(), line.unitPrice().toPlainString(), amount));
    }
    long tendered = command.tenders().stream().mapToLong(Tender::amountMinor).sum();
    require(tendered == total, "the tenders differ from the lines");
    apply(
        new Recorded(
            command.id(),
            "sale",
            command.source(),
            command.store(),
            command.till(),
            command.receipt(),
            command.businessDate(),
            command.currency(),
            lines,
            total,
            command.taxMinor(),
            command.tenders()));
  }

  @EventSourcingHandler
  void on(Recorded event) {
    id = event.id();
    totalMinor = event.totalMinor();
  }

  private static void require(boolean holds, String otherwise) {
    if (!holds) {
      throw new IllegalArgumentException(otherwise);
    }
  }

  /** Receipt number `n`, made like the one of bench/src/workload.rs. */
  static Record numbered(long n) {
    List<RungLine> lines = new ArrayList<>(3);
    long total = 0;
    for (long position = 0; position < 3; position++) {
      long quantity = 1 + (n + position) % 4;
      long price = 100 + (n * 13 + position * 17) % 900;
      total += quantity * price * 100;
      String sku = String.format("SKU-%05d", (n * 7 + position * 1001) % 5000);
      lines.add(new RungLine(sku, BigDecimal.valueOf(quantity), BigDecimal.valueOf(price)));
    }
    String id = new java.util.UUID(0x7034_0000_0000_8000L | (n << 24), n).toString();
    return new Record(
        id,
        "till",
        String.format("S%03d", n % 40),
        Long.toString(1 + n % 4),
        "p4-" + n,
        java.time.LocalDate.of(2026, 1, 1).plusDays(n / 40 % 360).toString(),
        "TWD",
        lines,
        total / 21,
        List.of(new Tender("card", total)));
  }
}
