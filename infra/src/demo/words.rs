//! Names and goods. Companies are called after Taiwan's animals and plants, addresses lie in districts that do not exist, mail goes
//! to `.example`: nobody here is real.

use super::luck::Luck;

/// Sales: who sells where.
pub struct Rep {
    pub name: &'static str,
    pub actor: &'static str,
    pub region: &'static str,
}

pub const REPS: [Rep; 6] = [
    Rep {
        name: "mei",
        actor: "user:mei",
        region: "台北",
    },
    Rep {
        name: "wei",
        actor: "user:wei",
        region: "台北",
    },
    Rep {
        name: "jun",
        actor: "user:jun",
        region: "台中",
    },
    Rep {
        name: "ling",
        actor: "user:ling",
        region: "台中",
    },
    Rep {
        name: "hao",
        actor: "user:hao",
        region: "高雄",
    },
    Rep {
        name: "ting",
        actor: "user:ting",
        region: "高雄",
    },
];

/// Who leads sales.
pub const SALES_LEAD: &str = "user:mei";

/// Service: who answers.
pub const AGENTS: [(&str, &str); 5] = [
    ("yun", "user:yun"),
    ("kai", "user:kai"),
    ("pei", "user:pei"),
    ("ren", "user:ren"),
    ("an", "user:an"),
];
pub const SERVICE_LEAD: (&str, &str) = ("fang", "user:fang");

/// Service: who drives out.
pub const TECHNICIANS: [(&str, &str); 6] = [
    ("tech-lin", "user:tech-lin"),
    ("tech-wu", "user:tech-wu"),
    ("tech-hung", "user:tech-hung"),
    ("tech-tsai", "user:tech-tsai"),
    ("tech-yang", "user:tech-yang"),
    ("tech-su", "user:tech-su"),
];

const ANIMALS_AND_PLANTS: [&str; 60] = [
    "藍鵲",
    "石虎",
    "黑熊",
    "飛魚",
    "雲豹",
    "水鹿",
    "帝雉",
    "白鷺",
    "鳳蝶",
    "螢火",
    "綠蠵",
    "梅鹿",
    "領角鴞",
    "紅檜",
    "扁柏",
    "相思樹",
    "苦楝",
    "月桃",
    "山櫻",
    "油桐",
    "鳶尾",
    "玉蘭",
    "野薑",
    "百合",
    "芒草",
    "蓮霧",
    "鳳梨",
    "釋迦",
    "楊桃",
    "烏魚",
    "虱目",
    "櫻鮭",
    "穿山甲",
    "獼猴",
    "八色鳥",
    "五色鳥",
    "黑面琵鷺",
    "大冠鷲",
    "雨燕",
    "翠鳥",
    "招潮蟹",
    "寄居蟹",
    "海豚",
    "抹香鯨",
    "玳瑁",
    "珊瑚",
    "龍眼",
    "荔枝",
    "芭樂",
    "愛玉",
    "仙草",
    "金針",
    "茄苳",
    "樟樹",
    "榕樹",
    "欒樹",
    "木棉",
    "杜鵑",
    "桂花",
    "茉莉",
];

const TRADES: [&str; 30] = [
    "精機", "機械", "食品", "紡織", "塑膠", "電子", "物流", "冷凍", "包材", "印刷", "五金", "光電", "生技", "建材",
    "橡膠", "模具", "飲料", "製罐", "水產", "茶業", "烘焙", "倉儲", "螺絲", "電鍍", "家具", "製藥", "玻璃", "造紙",
    "染整", "農產",
];

/// How many companies there can be.
pub const COMPANIES_MAX: usize = ANIMALS_AND_PLANTS.len() * TRADES.len();

/// The n-th company: its name, and what people call it. No two are the same.
pub fn company(n: usize) -> (String, String) {
    // Coprime to the number of names, so that neighbours in number are none in name.
    let place = n * 1_117 % COMPANIES_MAX;
    let short = format!(
        "{}{}",
        ANIMALS_AND_PLANTS[place % ANIMALS_AND_PLANTS.len()],
        TRADES[place / ANIMALS_AND_PLANTS.len()]
    );
    let form = match n % 10 {
        0..=5 => "股份有限公司",
        6..=8 => "有限公司",
        _ => "企業社",
    };
    (format!("{short}{form}"), short)
}

/// Companies abroad, their country, and what people call them.
pub const ABROAD: [(&str, &str, &str); 8] = [
    ("Kingfisher Packaging Co., Ltd.", "Kingfisher", "VN"),
    ("Lotus Pond Foods JSC", "Lotus Pond", "VN"),
    ("Banyan Cold Chain Co., Ltd.", "Banyan", "TH"),
    ("Hornbill Rubber Sdn. Bhd.", "Hornbill", "MY"),
    ("Mangrove Seafood Corp.", "Mangrove", "PH"),
    ("株式会社つばめ製作所", "つばめ製作所", "JP"),
    ("株式会社こまどり食品", "こまどり食品", "JP"),
    ("Frangipani Textiles PT", "Frangipani", "ID"),
];

const SURNAMES: [&str; 24] = [
    "陳", "林", "黃", "張", "李", "王", "吳", "劉", "蔡", "楊", "許", "鄭", "謝", "郭", "洪", "曾", "邱", "廖", "賴",
    "周", "葉", "蘇", "莊", "江",
];

const GIVEN: [&str; 32] = [
    "怡君", "雅婷", "淑芬", "美玲", "佳蓉", "欣怡", "詩涵", "宜蓁", "志明", "俊傑", "建宏", "家豪", "冠廷", "柏翰",
    "承恩", "宥廷", "秀英", "麗華", "文雄", "國華", "明德", "子晴", "品妍", "語彤", "博文", "振宇", "育誠", "佩珊",
    "思穎", "哲瑋", "彥廷", "筱雯",
];

pub fn person(luck: &mut Luck) -> String {
    format!("{}{}", luck.pick(&SURNAMES), luck.pick(&GIVEN))
}

/// A number that nobody has been given.
pub fn phone(n: usize) -> String {
    format!("0900-{:03}-{:03}", n / 1000 % 1000, n % 1000)
}

pub fn address(region: &str, luck: &mut Luck) -> String {
    format!(
        "{region}市示範區{}路{}號",
        luck.pick(&["藍天", "綠野", "晨光", "海風", "稻香", "星河"]),
        luck.between(1, 400)
    )
}

/// What an inspection reads.
pub struct Item {
    pub name: &'static str,
    pub reading: Reading,
}

pub enum Reading {
    /// In tenths of the unit: from where to where it is good.
    Measured(&'static str, i64, i64),
    /// In order or not.
    Seen,
}

/// A kind of machine that the company sells and looks after.
pub struct Machine {
    pub maker: &'static str,
    pub model: &'static str,
    pub name: &'static str,
    /// New Taiwan dollars.
    pub price: i64,
    pub checklist: &'static str,
    pub every_days: u32,
    pub items: &'static [Item],
    pub faults: &'static [&'static str],
    pub parts: &'static [&'static str],
}

const fn measured(name: &'static str, unit: &'static str, low: i64, high: i64) -> Item {
    Item {
        name,
        reading: Reading::Measured(unit, low, high),
    }
}

const fn seen(name: &'static str) -> Item {
    Item {
        name,
        reading: Reading::Seen,
    }
}

pub const MACHINES: [Machine; 6] = [
    Machine {
        maker: "玉嶺",
        model: "YL-37",
        name: "螺旋式空壓機",
        price: 680_000,
        checklist: "空壓機季檢",
        every_days: 91,
        items: &[
            measured("排氣壓力", "bar", 68, 85),
            measured("排氣溫度", "℃", 700, 980),
            measured("噪音", "dB", 620, 780),
            seen("油位"),
            seen("漏氣"),
        ],
        faults: &["排氣溫度過高", "壓力不足", "漏油", "無法啟動"],
        parts: &["AF-37", "OF-37", "OS-20", "BELT-37"],
    },
    Machine {
        maker: "山海",
        model: "SH-V850",
        name: "立式綜合加工機",
        price: 2_450_000,
        checklist: "加工機半年檢",
        every_days: 182,
        items: &[
            measured("主軸偏擺", "µm", 10, 50),
            measured("X 軸背隙", "µm", 20, 80),
            measured("切削液濃度", "%", 60, 100),
            seen("導軌潤滑"),
            seen("刀庫換刀"),
        ],
        faults: &["主軸異音", "換刀卡住", "定位誤差", "冷卻水不足"],
        parts: &["BRG-7014", "ATC-ARM", "PUMP-C2", "ENC-17"],
    },
    Machine {
        maker: "飛梭",
        model: "FS-25E",
        name: "電動堆高機",
        price: 890_000,
        checklist: "堆高機季檢",
        every_days: 91,
        items: &[
            measured("電瓶電壓", "V", 480, 560),
            measured("貨叉厚度", "mm", 360, 420),
            seen("煞車"),
            seen("喇叭與警示燈"),
        ],
        faults: &["電瓶充不進電", "貨叉下沉", "煞車異音"],
        parts: &["BAT-48", "SEAL-25", "BRK-25"],
    },
    Machine {
        maker: "雪峰",
        model: "XF-40",
        name: "冷凍機組",
        price: 1_150_000,
        checklist: "冷凍機季檢",
        every_days: 91,
        items: &[
            measured("庫內溫度", "℃", -250, -180),
            measured("高壓", "bar", 120, 165),
            measured("低壓", "bar", 10, 25),
            seen("結霜"),
            seen("冷媒洩漏"),
        ],
        faults: &["溫度降不下來", "壓縮機跳脫", "冷媒洩漏", "風扇異音"],
        parts: &["R449A-10", "FAN-40", "EXV-40", "CTRL-X"],
    },
    Machine {
        maker: "稻香",
        model: "DX-600",
        name: "自動包裝機",
        price: 760_000,
        checklist: "包裝機半年檢",
        every_days: 182,
        items: &[
            measured("封口溫度", "℃", 1_400, 1_800),
            measured("包裝速度", "包/分", 450, 650),
            seen("切刀"),
            seen("感測器"),
        ],
        faults: &["封口不良", "切刀不準", "輸送帶偏移"],
        parts: &["KNIFE-6", "HEAT-6", "PHOTO-2"],
    },
    Machine {
        maker: "赤岩",
        model: "CY-2T",
        name: "貫流式鍋爐",
        price: 1_320_000,
        checklist: "鍋爐季檢",
        every_days: 91,
        items: &[
            measured("蒸汽壓力", "bar", 60, 80),
            measured("排煙溫度", "℃", 1_500, 2_200),
            measured("給水 pH", "", 85, 110),
            seen("安全閥"),
            seen("水位計"),
        ],
        faults: &["點火失敗", "低水位跳脫", "蒸汽壓力不足"],
        parts: &["IGN-2", "LWC-2", "GSK-80"],
    },
];

/// What the shops sell: number, name, price in New Taiwan dollars, and how often.
pub const GOODS: [(&str, &str, i64, i64); 32] = [
    ("T-1001", "18V 充電起子機", 3_290, 6),
    ("T-1002", "18V 充電衝擊扳手", 4_680, 4),
    ("T-1003", "砂輪機 4 吋", 1_890, 5),
    ("T-1004", "電鑽 13mm", 2_150, 4),
    ("T-1005", "熱風槍", 1_280, 3),
    ("T-1006", "雷射測距儀", 1_990, 3),
    ("T-1007", "數位卡尺 150mm", 890, 5),
    ("T-1008", "扭力扳手", 2_480, 2),
    ("T-1009", "套筒組 46 件", 1_180, 5),
    ("T-1010", "六角扳手組", 320, 9),
    ("T-1011", "活動扳手 10 吋", 380, 7),
    ("T-1012", "尖嘴鉗", 260, 9),
    ("T-1013", "捲尺 5.5m", 150, 14),
    ("T-1014", "工具箱", 990, 5),
    ("S-2001", "防護手套 12 雙", 360, 16),
    ("S-2002", "安全帽", 420, 6),
    ("S-2003", "護目鏡", 180, 10),
    ("S-2004", "耳塞 50 副", 250, 6),
    ("S-2005", "防塵口罩 20 入", 390, 11),
    ("S-2006", "安全鞋", 1_680, 4),
    ("S-2007", "反光背心", 199, 7),
    ("C-3001", "潤滑油 1L", 280, 14),
    ("C-3002", "防鏽油 420ml", 165, 15),
    ("C-3003", "空壓機油 4L", 980, 7),
    ("C-3004", "切削液 18L", 2_350, 3),
    ("C-3005", "砂輪片 10 入", 220, 13),
    ("C-3006", "鑽頭組 19 支", 560, 8),
    ("C-3007", "束帶 100 入", 89, 17),
    ("C-3008", "電工膠帶", 45, 20),
    ("C-3009", "矽利康", 120, 12),
    ("C-3010", "螺絲組 500 入", 299, 9),
    ("C-3011", "LED 工作燈", 690, 6),
];
