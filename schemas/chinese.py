"""Chinese persons, places, dates and resident identity numbers in a text. There are no spaces to lean on. Pure.

A name is looked for where something tells of it: a role before it, a title behind it, or the sex after a comma.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from schemas.span import Span

_HAN = r"[\u4e00-\u9fff]"
# The commonest family names of the mainland, and the compound ones still in use.
_FAMILY = (
    "(?:欧阳|上官|司马|诸葛|东方|皇甫|尉迟|公孙|慕容|司徒|夏侯|令狐|端木|["
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩邓冯曹彭曾肖萧田董潘袁蔡蒋余于杜叶程魏苏吕丁任卢姚沈钟姜崔谭陆范汪廖石金韦"
    "贾夏付傅方邹熊白孟秦邱侯江尹薛闫阎雷龙黎史陶贺毛郝顾龚邵万覃武钱戴严莫孔向常汤辛祁樊柳邬耿齐易乔赖文庄施洪季安裴葛章鲁殷倪牛岳"
    "骆庞聂焦康柯包鲍翁詹曲纪段梅费符盛凌霍尚涂甘申游阮翟欧柴蓝关喻房左解褚娄鞠冉佟戚谷单颜古童项管储艾祝时姬车路苗米桂滕楚屈宁景"
    "党麦巩简靳饶候吉井华卓池明司封沙苑温邢毕岑栾臧虞裘窦兰云冀缪蒙富阴麻俞寇茹揭索隋巫练庾])"
)
# What follows a name and is no part of it.
_NEVER = "男女于因以自患诉的是在有无，。"
_RARELY = "今者来就诊主先生士医岁年月日入住出及与和查陪行系为护体"
_GIVEN = rf"(?![{_NEVER}]){_HAN}(?:(?![{_NEVER}]){_HAN}(?=[\s,。;(:]|$)|(?![{_NEVER}{_RARELY}]){_HAN})?"
# Words of a history that begin like a family name.
_ILLNESS = (
    "(?!高[血热龄糖脂钾钠钙尿危压]|黄[疸染]|白[细蛋内斑带]|安[静全]|时[有常而]|常[规有年见]|金属|单[侧纯次发]|左|解[大小除]|路[上途]|关[节闭]|"
    "房[颤性室]|包[块皮括]|水肿|温度|应[用]|管[理路]|明[显确]|方[面案]|易[怒激疲]|计划|于|平[时素卧]|何[时种]|石膏|胡言|"
    "顾虑|车祸|凌晨|阴[道囊茎部]|麻[醉木]|康复|温[水和])"
)
_ROLE = (
    "(?:患者|患儿|病人|伤者|产妇|姓名|名字|联系人|家属|监护人|签名|签字|记录者|记录人|记录医师|书写者|报告者|审核者|审核医师|检查者|术者|主刀|"
    "助手|麻醉师|主治医师|住院医师|主任医师|经治医师|管床医师|责任护士|护士|医师|医生|其妻|其夫|其子|其女|其父|其母|妻子|丈夫|儿子|女儿|父亲|"
    "母亲|配偶|哥哥|姐姐|弟弟|妹妹|朋友|邻居|名叫|叫做)"
)
_TITLE = "(?:先生|女士|小姐|同志|医生|医师|大夫|主任|副主任|教授|护士|院长|老师|某)"
_PROVINCE = (
    "(?:北京|天津|上海|重庆|河北|山西|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南|广东|海南|四川|贵州|云南|陕西|甘肃|青海|"
    "台湾|内蒙古|广西|西藏|宁夏|新疆|香港|澳门)(?:(?:省|(?:壮族|回族|维吾尔)?自治区|特别行政区)|市)?"
)
_TOWN = rf"{_HAN}{{1,8}}?(?:市|自治州|地区|盟|区|县|旗)"
_ROAD = rf"{_HAN}{{0,12}}?(?:路|街|大道|巷|弄|村|镇|乡)"
_HOUSE = r"(?:[\dA-Za-z]{1,6}(?:号楼?|座|弄|栋|幢|单元|室|楼|层|组)){0,5}(?:[ ,]?\d{6}(?!\d))?"
_NUMBERED = "(?:身份证|证件|住院|门诊|病案|病历|医保|社保|就诊卡|档案|登记|检查|护照)卡?(?:号码?)?"

_RULES = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("name", rf"{_ROLE}(?:[为是叫]?[:\s]{{1,2}}|[为是叫]?{_ILLNESS})(?P<it>{_FAMILY}{_GIVEN})"),
        ("name", rf"(?<![主副])(?P<it>{_FAMILY}{_HAN}{{0,2}}?)(?={_TITLE})"),
        ("name", rf"(?:^|[\s,。;、(])(?P<it>{_FAMILY}{_HAN}{{1,2}})(?=[,(\s]{{1,2}}[男女](?:性|[,\s)]|$))"),
        ("address", rf"{_PROVINCE}(?:(?:{_TOWN}){{1,3}}(?:{_ROAD}){{0,2}}|(?:{_ROAD}){{1,2}}){_HOUSE}"),
        (
            "address",
            rf"(?:住址|地址|家住|现住|居住于|居住地|住在|户籍|籍贯)[为是]?[:\s]{{0,2}}(?P<it>(?:{_TOWN}){{0,3}}(?:{_ROAD}){{1,2}}{_HOUSE})",
        ),
        ("address", rf"(?!家住|住|现住|来自|[地住]址){_HAN}{{2,4}}?[市县区]{_ROAD}\d{{1,5}}号{_HOUSE}"),
        (
            "date",
            r"(?:18|19|20)\d\d\s?年\s?\d{1,2}\s?月份?(?:\s?\d{1,2}\s?[日号])?|(?<!\d)\d{1,2}\s?月\s?\d{1,2}\s?[日号]",
        ),
        ("id", rf"{_NUMBERED}[为是]?[:\s]{{0,2}}(?P<it>[A-Za-z]{{0,6}}\d[\dA-Za-z-]{{4,30}})"),
        ("phone", r"(?:电话|手机|联系方式|传真|微信|QQ)(?:号码?)?[为是]?[:\s]{0,2}(?P<it>\+?\d[\d -]{5,16}\d)"),
        ("phone", r"(?<![\d.])(?:\+?86[ -]?)?1[3-9]\d(?:[ -]?\d{4}){2}(?![\d.])|(?<![\d.])0\d{2,3}-\d{7,8}(?!\d)"),
    )
)

_IDENTITY = re.compile(
    r"(?<![\dA-Za-z])[1-9]\d{5}(?:18|19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?![\dA-Za-z])"
)
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)  # 2 to the power of 17 down to 1, modulo 11
_CHECKS = "10X98765432"


def chinese(text: str) -> Iterator[Span]:
    for kind, pattern in _RULES:
        group = "it" if "it" in pattern.groupindex else 0
        for found in pattern.finditer(text):
            yield Span(*found.span(group), kind)


def identity_numbers(text: str) -> Iterator[Span]:
    """Resident identity numbers, which stand by themselves: area, date of birth, sequence and check agree."""
    for found in _IDENTITY.finditer(text):
        if is_identity_number(found[0]):
            yield Span(*found.span(), "id")


def is_identity_number(number: str) -> bool:
    """Whether the last of eighteen characters checks the others (GB 11643-1999, ISO 7064 MOD 11-2)."""
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, number[:17], strict=True))
    return number[17].upper() == _CHECKS[total % 11]
